"""What a file is, judged by its bytes: a checkpoint of a known kind, or an error that says what it is."""

from __future__ import annotations

import html
import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Literal

from lpcvc_zoo.errors import WeightsError

Kind = Literal["safetensors", "torch", "torch legacy", "torchscript"]

LEGACY_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # torch.serialization.MAGIC_NUMBER, as pickle writes it
SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
HEAD_BYTES = 1 << 16
AGAIN = "Download it again, or give another file."


def kind_of(path: Path, name: str = "") -> Kind:
    """The kind of checkpoint in the file; ``name`` is what messages call it, its path if left out.

    WeightsError says what the file is instead: missing, a folder, empty, cut off, a web page, JSON, a git-LFS
    pointer, somebody else's zip or pickle. Nothing is unpickled.
    """
    name = name or str(path)
    if path.is_dir():
        raise WeightsError(f"{name} is a folder; name the checkpoint file in it.")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise WeightsError(f"{name} does not exist.") from None
    except OSError as error:
        raise WeightsError(f"{name} can't be read: {error.strerror}.") from error
    if not head:
        raise WeightsError(f"{name} is empty. {AGAIN}")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path, name)
    if head.startswith(b"\x80") and LEGACY_MAGIC in head[:32]:
        return "torch legacy"
    if _is_safetensors(head):
        return "safetensors"
    raise WeightsError(f"{name} is {_instead(path, head)}")


def _is_safetensors(head: bytes) -> bool:
    return (
        len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= SAFETENSORS_HEADER_LIMIT
    )


def _kind_of_zip(path: Path, name: str) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error) as error:
        raise WeightsError(
            f"{name} begins like a zip archive but has no valid table of contents ({error}): it is damaged "
            f"or was cut off at {path.stat().st_size} bytes. {AGAIN}"
        ) from None
    if any(entry.split("/")[1:] == ["constants.pkl"] for entry in names):
        return "torchscript"
    if any(entry.split("/")[1:] == ["data.pkl"] for entry in names):
        return "torch"
    shown = ", ".join(names[:3]) or "nothing"
    raise WeightsError(f"{name} is a zip archive, but not one that torch wrote: it holds {shown}. {AGAIN}")


def _instead(path: Path, head: bytes) -> str:
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d+)", text, re.MULTILINE)
        of = f" to a file of {size[1]} bytes" if size else ""
        return f"a git-LFS pointer{of}, not the file itself. Run `git lfs pull` where it came from."
    if text.startswith("<"):
        return _markup(text)
    if text.startswith(("{", "[")):
        return _json(path)
    if head.startswith(b"\x80"):
        return (
            "a bare Python pickle that torch.save did not write. Unpickling can run code, so it is not read; "
            "ask for the weights as .safetensors."
        )
    known = "safetensors, torch, TorchScript"
    return f"no checkpoint of a known kind ({known}): it begins with {head[:8]!r}. {AGAIN}"


def _markup(text: str) -> str:
    is_html = re.match(r"<(!doctype html|html|head|body|!--)", text, re.IGNORECASE) is not None
    found = re.search(r"<(title|message|code)\b[^>]*>(.*?)</\1>", text, re.IGNORECASE | re.DOTALL)
    says = f" that says {_short(html.unescape(found[2]))!r}" if found else ""
    return f"{'an HTML page' if is_html else 'an XML document'}{says}, not a checkpoint. {AGAIN}"


def _json(path: Path) -> str:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return f"text that begins like JSON, not a checkpoint. {AGAIN}"
    facts = value if isinstance(value, dict) else {}
    if "weight_map" in facts:
        return "the JSON index of a checkpoint in several shards; give one that is a single file."
    said = facts.get("error") or facts.get("message")
    return f"a JSON document{f' that says {_short(str(said))!r}' if said else ''}, not a checkpoint. {AGAIN}"


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 120 else words[:117] + "..."
