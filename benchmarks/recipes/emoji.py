"""Emoji as cut-outs: SVG out of iconify's npm packages, drawn by resvg.

Left out are people, faces, flags and symbols: their pictures say little that a photo's could.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lpcvc_zoo.files import written_whole

CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")
EDGE = 256  # pixels
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def fetch_emoji(package: str, folder: Path) -> str:
    """Draw an npm package's emoji as ``folder/<category>/<name>.png``, and give its version."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = subprocess.run(
        ["npm", "pack", "--json", package], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
    )
    (packed,) = json.loads(shown.stdout)
    with tarfile.open(folder / packed["filename"]) as archive:
        icons, metadata = (_json_in(archive, name) for name in ("icons", "metadata"))
    for category, name, svg in svgs(icons, metadata):
        path = folder / category / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_bytes(drawn(svg))
    return str(packed["version"])


def svgs(icons: dict[str, Any], metadata: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Category, name and SVG document of each emoji, in iconify's format of sets."""
    for category in CATEGORIES:
        for name in metadata["categories"][category]:
            icon = icons["icons"].get(name)
            if icon is None:  # another name of one that is there
                continue
            size = [icon.get(edge, icons.get(edge, 16)) for edge in ("width", "height")]  # 16 is the format's
            yield category, name, f'{_SVG} viewBox="0 0 {size[0]} {size[1]}">{icon["body"]}</svg>'


def drawn(svg: str) -> bytes:
    """A PNG with a transparent ground."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise SystemExit("This recipe draws SVG: pip install resvg-py") from None
    return bytes(svg_to_bytes(svg_string=svg, width=EDGE, height=EDGE, skip_system_fonts=True))


def _json_in(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    member = archive.extractfile(f"package/{name}.json")
    assert member is not None, name
    document: dict[str, Any] = json.load(io.TextIOWrapper(member, encoding="utf-8"))
    return document
