"""Where a published checkpoint is, and whether a local file is that checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from lpcvc_zoo.entry import Pretrained
from lpcvc_zoo.errors import WeightsError
from lpcvc_zoo.files import cache_dir
from lpcvc_zoo.weights.content import kind_of
from lpcvc_zoo.weights.hashes import sha256_once


class Unreachable(Exception):
    """The network or the server did not give the file; its message says why."""


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face hub repository: the first of ``files`` that the repository has.

    ``revision`` None is the default branch; ``sha256`` may be a prefix.
    """

    repo: str
    files: tuple[str, ...]
    revision: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def url(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, self.files[0], revision=self.revision)

    @property
    def places(self) -> tuple[Path, ...]:
        """Where a file put there by hand is found."""
        folder = hub_folder(self.repo, self.revision)
        return tuple(folder / file for file in self.files)


@dataclass(frozen=True)
class WebFile:
    """A file at a plain URL."""

    url: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """Where the download is kept: the URL's own path, below our cache."""
        parts = urlsplit(self.url)
        names = [name for name in parts.path.split("/") if name not in ("", ".", "..")]
        if parts.query:
            names.insert(-1, quote(parts.query, safe=""))
        return (cache_dir().joinpath("weights", "web", parts.netloc.rpartition("@")[2], *names),)


Source = HubFile | WebFile


def hub_folder(repo: str, revision: str | None) -> Path:
    """The folder of our own cache that stands for a revision of a hub repository."""
    return cache_dir() / "weights" / "hub" / repo / (revision or "main")


def source_of(record: Pretrained) -> Source:
    """Where the record's file is. What open_clip knows is looked up there, and its hub copy preferred."""
    if record.open_clip is not None:
        return _known_to_open_clip(record)
    if record.repo is not None and record.file is not None:
        return HubFile(record.repo, (record.file,), record.revision, record.sha256, record.size_bytes)
    if record.url is not None:
        return WebFile(record.url, record.sha256, record.size_bytes)
    raise AssertionError("Pretrained has exactly one source")


def _known_to_open_clip(record: Pretrained) -> Source:
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    assert record.open_clip is not None
    architecture, tag = record.open_clip
    facts = open_clip.get_pretrained_cfg(architecture, tag)
    if facts.get("hf_hub"):
        repo, _, file = facts["hf_hub"].rpartition("/")  # "org/repo/file", or "org/repo/" for the usual names
        files = (file,) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
        return HubFile(repo, files, record.revision, record.sha256, record.size_bytes)
    if facts.get("url"):
        return WebFile(
            facts["url"], record.sha256 or _sha256_in_open_clip_url(facts["url"]), record.size_bytes
        )
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
    raise WeightsError(
        f"The installed open_clip {open_clip.__version__} knows no weights {tag!r} for {architecture}; "
        f"it has: {tags}. Try a newer one: pip install -U open_clip_torch"
    )


def _sha256_in_open_clip_url(url: str) -> str | None:
    """Only these two hosts put hashes into their URLs, as open_clip's own download has it."""
    path = Path(urlsplit(url).path)
    if "openaipublic" in url:
        return path.parent.name
    if "mlfoundations" in url:
        return path.stem.rpartition("-")[2]
    return None


def check(path: Path, source: Source, name: str = "") -> None:
    """Raise WeightsError unless the file is a checkpoint of the published size and sha256, where known."""
    name = name or str(path)
    kind_of(path, name)
    size = path.stat().st_size
    if source.size_bytes not in (None, size):
        raise WeightsError(f"{name} has {size} bytes, but the published file has {source.size_bytes}.")
    if source.sha256 is not None and not (digest := sha256_once(path)).startswith(source.sha256):
        raise WeightsError(
            f"{name} is not the published file: its sha256 is {digest}, but {source.sha256} was published."
        )
