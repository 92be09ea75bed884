"""A model on disk, exported or adopted: its ONNX towers and the manifest that says what they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.errors import ExportError
from lpcvc_zoo.files import sha256_of, try_to_write, write_text

MANIFEST = "manifest.json"
REJECTED = "manifest.rejected.json"  # of towers that ONNX Runtime and torch disagree on; nothing loads it
FILES: dict[Tower, str] = {"image": "image_encoder.onnx", "text": "text_encoder.onnx"}


class _Record(BaseModel):
    # JSON has no NaN, which is what a collapsed tower's cosine may be: it is "NaN" there.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Parity(_Record):
    """Worst agreement between torch and ONNX Runtime over real photos or captions."""

    samples: int
    min_cosine: float
    max_abs_difference: float


class Effect(_Record):
    """What one rewrite did to a tower; the worst cosine is of embeddings before and after it.

    ``places`` is 0 where the tower has nothing to rewrite; then nothing was measured.
    """

    rewrite: str
    places: int
    nodes_before: int | None = None
    nodes_after: int | None = None
    min_cosine: float | None = None


class Prepared(_Record):
    """What was done to a tower before it was exported, in ``places``, whatever the rewrites.

    ``fold``: branches and BatchNorm into convolutions; places are BatchNorms, counted are the operators that
    torch runs, the cosine is of one seeded sample when the model was built. ``cut_text``: the sequence, in
    tokens. ``pool_at_eot``: by a product instead of ArgMax and Gather; nodes of this tower with either. For
    the last two the worst cosine of embeddings before and after is over the captions of ``parity``.
    """

    step: Literal["fold", "cut_text", "pool_at_eot"]
    places: int
    counted: Literal["operators", "tokens", "nodes"]
    before: int
    after: int
    min_cosine: float


class Calibration(_Record):
    """What a quantised tower's ranges were measured on: photos or captions of a source, drawn by a seed."""

    source: str
    samples: int
    seed: int


class Quantized(_Record):
    """How a tower was quantised.

    ``kept``: layers, and types of operators, left in float because they cost too much. ``agreement`` is to
    the float export, over photos or captions that calibrated nothing. ``engine``: what quantised it, with its
    version; None in manifests older than this field.
    """

    precision: str
    engine: str | None = None
    calibration: Calibration
    kept: tuple[str, ...]
    mean_cosine: float
    agreement: Parity


class _File(_Record):
    file: str
    sha256: str


class Encodings(_File):
    """An AIMET encodings file that lies beside a tower, under the tower's own name."""


class TowerFile(_File):
    """One tower. Shapes are static; ``size_bytes`` and ``sha256`` are of the file.

    ``parity`` is of the float export to the torch model as built, before any rewrite. ``changes``: what was
    done to a file made elsewhere to put it into the contract's form. ``prepared``: what was done before the
    export, ``effects``: what rewrites did in it.
    """

    size_bytes: int
    nodes: int
    input_name: str
    input_shape: tuple[int, ...]
    input_dtype: str
    output_name: str
    output_shape: tuple[int, ...]
    output_dtype: str
    parity: Parity | None = None
    changes: tuple[str, ...] = ()
    encodings: Encodings | None = None
    prepared: tuple[Prepared, ...] = ()
    effects: tuple[Effect, ...] = ()
    quantized: Quantized | None = None


class TextLengthChoice(_Record):
    """Why the text sequence was cut to ``text_length`` tokens.

    It is the shortest length tried that lost nothing there; of a causal tower the longest text's own, rounded
    up to a multiple of 4 (at least 8).

    ``longest_text``: tokens of the dataset's longest text, start and end included. ``exact``: the tower is
    causal and no text is longer, so every embedding is the same; otherwise no recall was lower than at full
    length. ``recall``: by text length, by the contract's ``metric``, on the whole ``dataset``.
    """

    text_length: int
    dataset: str
    longest_text: int
    exact: bool
    metric: str
    recall: dict[int, float]


class Manifest(_Record):
    """What was exported, from which weights, with which tools, and how well it agrees with torch.

    Of an adopted model, what its files don't tell is None, and so may one of its towers be. ``text_depth``:
    layers that the text transformer has here; None also where it is no stack of like layers.
    """

    entry: str
    family: str
    weights: str
    contract: str
    precision: str = "float"
    rewrites: tuple[str, ...] = ()
    fused: bool | None = None
    text_length: int | None = None
    text_depth: int | None = None
    text_length_choice: TextLengthChoice | None = None
    image_size: int | None = None
    embed_dim: int
    interpolation: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    opset: int
    image: TowerFile | None
    text: TowerFile | None
    versions: dict[str, str]
    seconds: float

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The towers there are: both, or the only one that was adopted."""
        return tuple(tower for tower in TOWERS if (self.image if tower == "image" else self.text) is not None)

    @property
    def hashes(self) -> str:
        """The sha256 of every tower and its encodings, in order: what identifies the pair."""
        towers = [self.tower(tower) for tower in self.towers]
        kept = [file for tower in towers for file in (tower, tower.encodings) if file is not None]
        return " ".join(file.sha256 for file in kept)

    def tower(self, tower: Tower) -> TowerFile:
        """ExportError where there is no such tower."""
        found = self.image if tower == "image" else self.text
        if found is None:
            raise ExportError(f"{self.entry} has no {tower} tower: it was adopted without one.")
        return found


class Artifact:
    """A folder that holds towers and their manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def path(self, tower: Tower) -> Path:
        return self.folder / self.manifest.tower(tower).file

    def record(self, choice: TextLengthChoice) -> Artifact:
        """This artifact with the reason for its text length in its manifest, which is written whole."""
        manifest = self.manifest.model_copy(update={"text_length_choice": choice})
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=2))
        return Artifact(self.folder, manifest)

    def verify(self) -> None:
        """Raise ExportError where a file is missing or its sha256 is not the manifest's."""
        for tower in self.manifest.towers:
            made = self.manifest.tower(tower)
            for kept in (made, made.encodings) if made.encodings else (made,):
                path = self.folder / kept.file
                if not path.is_file():
                    raise ExportError(f"{path} is missing; make the artifact again.")
                if sha256_of(path) != kept.sha256:
                    raise ExportError(
                        f"{path} is not the file its manifest describes (sha256 differs); make it again."
                    )

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.entry!r}, {self.manifest.weights!r}, folder={str(self.folder)!r})"


def load_artifact(folder: str | Path) -> Artifact:
    """Read a folder made by ``export`` or ``adopt``; ExportError says what is missing or does not match."""
    folder = Path(folder)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder} holds no {MANIFEST}: not a folder made by export or adopt.") from None
    except (ValidationError, ValueError, OSError) as error:
        raise ExportError(f"{folder / MANIFEST} is not a valid manifest: {error}") from None
    artifact = Artifact(folder, manifest)
    artifact.verify()
    return artifact


@contextmanager
def both_towers(folder: Path) -> Iterator[Path]:
    """Give a temporary folder for both towers, which replace those in ``folder`` when the block ends well.

    Until then what lies there stays as it is; a manifest of earlier towers goes before they do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
        yield Path(name)
        for earlier in (MANIFEST, REJECTED):
            (folder / earlier).unlink(missing_ok=True)
        for made in Path(name).iterdir():
            made.replace(folder / made.name)


def check_folder(folder: str | Path) -> None:
    """ExportError unless a folder is there, or can be made there, and be written into; makes nothing."""
    try:
        try_to_write(Path(folder))
    except OSError as error:
        said = error.strerror or error
        raise ExportError(f"{folder} can't be written: {said}. Name another folder.") from None
