"""Pictures with free licences out of Debian's and npm's packages, as a folder to train image towers on.

    python benchmarks/recipes/collect_pictures.py pictures

Needs ``apt-get`` and ``dpkg`` (Debian 12 or a system that can fetch its packages; under 0.6 GB), ``npm`` and
``pip install resvg-py``. Gives ``pictures/ingredients`` (backgrounds, cut-outs, drawings and emoji, small:
what ``scenes.py`` makes pictures of), ``pictures/held_out`` (whole photos of which no part is in the others)
and ``manifest.csv``: of each picture its sha256, its licence, the package's file that it was made of, and
that file's sha256 (an emoji's as it was drawn).
The same packages give the same pictures; a run that was stopped goes on. Pictures of an earlier run that are
none of this one's go. The bundled benchmark's photos are left out, and whatever looks like one of them at any
size or mirrored.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import emoji
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps
from qt_resources import files_of

from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.files import sha256_of, written_whole

SEED = 2026
LONGEST = {"held_out": 384, "backgrounds": 800}  # pixels, of a picture's longer edge
THING = 192  # the same, of what is pasted
HELD_OUT = 0.25  # of the photos
SAME = 0.9  # correlation of two thumbnails from which on two pictures count as the same
Image.MAX_IMAGE_PIXELS = None  # wallpapers are large


@dataclass(frozen=True)
class Package:
    """``photos``, ``scenes`` (not held out: paintings, abstract wallpapers), ``cutouts``, ``drawings`` and
    ``emoji`` are patterns of files below ``/``; what ``without`` names in its path is left out. One with
    ``emoji`` is npm's, any other Debian's."""

    name: str
    licence: str
    photos: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    cutouts: tuple[str, ...] = ()
    drawings: tuple[str, ...] = ()
    emoji: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_GCOMPRIS = "rcc/{0}/gcompris/src/activities/{0}/resource/**/*.webp"
_STAMPS = "usr/share/tuxpaint/stamps/"
_CLIPART = "usr/share/openclipart/png/"
_KINDS = (
    "recreation", "transportation", "food", "animals", "tools", "plants", "buildings", "education",
    "electronics", "containers", "unsorted", "people",
)  # fmt: skip
PACKAGES = (
    Package(
        "gcompris-qt-data",
        "free, each file's in its activity's readme (public domain, CC0, CC BY, CC BY-SA, GPL)",
        photos=tuple(
            _GCOMPRIS.format(activity)
            for activity in ("categorization", "explore_monuments", "erase", "explore_world_music")
        ),
        scenes=(_GCOMPRIS.format("paintings"),),
        cutouts=(_GCOMPRIS.format("clickgame"), _GCOMPRIS.format("solar_system")),
        without=("/alphabets/", "/numbers/"),
    ),
    Package(
        "tuxpaint-stamps-default",
        "GPL-2",
        cutouts=(_STAMPS + "**/*.png",),
        without=("/symbols/", "/cartoon/", "/flags/", "/roadsigns/"),
    ),
    Package(
        "openclipart-png", "public domain",
        drawings=tuple(f"{_CLIPART}{kind}/**/*.png" for kind in _KINDS),
    ),
    Package(
        "mate-backgrounds", "GPL-2+ and CC BY-SA 4.0",
        photos=("usr/share/backgrounds/mate/nature/*.jpg",), scenes=("usr/share/backgrounds/mate/**/*.*g",),
    ),
    Package("gnome-backgrounds", "CC BY-SA 3.0", scenes=("usr/share/backgrounds/gnome/*.webp",)),
    Package(
        "plasma-workspace-wallpapers", "GPL-2+ and LGPL-3",
        scenes=("usr/share/wallpapers/*/contents/images/*.*g",),
    ),
    *(
        Package(name, "CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0", photos=("usr/share/**/*.jpg",))
        for name in ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04")
    ),
    Package("ukui-wallpapers", "CC BY-SA 3.0", scenes=("usr/share/backgrounds/*.*g",)),
    Package(
        "python3-skimage", "BSD-3-clause; its pictures are public domain or CC0",
        photos=tuple(
            f"usr/lib/python3/dist-packages/skimage/data/{name}"
            for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
        ),
    ),
    Package("@iconify-json/noto", "Apache-2.0", emoji=("*/*.png",)),
    Package("@iconify-json/fluent-emoji-flat", "MIT", emoji=("*/*.png",)),
    Package("@iconify-json/twemoji", "CC BY 4.0", emoji=("*/*.png",)),
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A file of a package, and where it lies now."""

    package: Package
    version: str
    root: Path
    path: Path

    @property
    def source(self) -> str:
        return f"{self.package.name} {self.version}: {self.path.relative_to(self.root).as_posix()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    unpacked = [fetched(package, given.out / "packages") for package in PACKAGES]
    everything: dict[str, list[Found]] = {
        kind: [found for package in unpacked for found in files(*package, kind)]
        for kind in ("photos", "scenes", "cutouts", "drawings", "emoji")
    }
    with (PHOTOS / "CREDITS.csv").open(encoding="utf-8") as file:
        taken = {row["original_path"].rpartition(":/")[2] for row in csv.DictReader(file)}
    for found in everything.values():
        found[:] = [item for item in found if not item.path.as_posix().endswith(tuple(taken))]
    known = Thumbnails()
    for path in sorted((PHOTOS / "images").iterdir()):
        known.add(Image.open(path))
    photos = known.new(everything["photos"])
    scenes = known.new(everything["scenes"])
    cutouts = [found for found in everything["cutouts"] if is_cutout(found.path)]
    drawings = [found for found in everything["drawings"] if is_cutout(found.path)]
    held = [found for found in photos if share_of(found.source) < HELD_OUT]
    shown = [found for found in photos if share_of(found.source) >= HELD_OUT]
    print(f"{len(photos)} photos ({len(held)} held out), {len(scenes)} scenes, {len(cutouts)} cut-outs, "
          f"{len(drawings)} drawings, {len(everything['emoji'])} emoji")  # fmt: skip
    rows = [
        *saved(held, given.out, "held_out"),
        *saved([*shown, *scenes], given.out, "ingredients/backgrounds"),
        *saved(cutouts, given.out, "ingredients/cutouts"),
        *saved(drawings, given.out, "ingredients/drawings"),
        *saved(everything["emoji"], given.out, "ingredients/emoji"),
    ]
    clear(given.out, (row[0] for row in rows))
    with (
        written_whole(given.out / "manifest.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "sha256", "licence", "made_of", "source_sha256"))
        writer.writerows(rows)
    print(f"{len(rows)} pictures in {given.out}")


def fetched(package: Package, folder: Path) -> tuple[Package, str, Path]:
    """The package, its version, and the folder that it is unpacked in; emoji are of ``emoji.py`` as it is."""
    root = folder / package.name
    drawn_by = f".{sha256_of(Path(emoji.__file__))[:12]}" if package.emoji else ""
    done = root.with_name(f"{root.name}{drawn_by}.version")
    if not done.is_file() and package.emoji:
        shutil.rmtree(root, ignore_errors=True)
        done.write_text(emoji.fetch_emoji(package.name, root))
    elif not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", package.name], cwd=folder, check=True)
        archive = max(folder.glob(f"{package.name}_*.deb"), key=lambda path: path.stat().st_mtime)
        subprocess.run(["dpkg", "-x", archive, root], check=True)
        for resource in sorted(root.rglob("*.rcc")):
            for name, content in files_of(resource.read_bytes()):
                target = root / "rcc" / resource.stem / name.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        shown = subprocess.run(
            ["dpkg-deb", "-f", archive, "Version"], check=True, capture_output=True, text=True
        )
        done.write_text(shown.stdout.strip())
    return package, done.read_text(), root


def files(package: Package, version: str, root: Path, kind: str) -> Iterator[Found]:
    """Files of a kind; each picture once, where a pattern or a link names it again, the largest first."""
    patterns: tuple[str, ...] = getattr(package, kind)
    paths = {path for pattern in patterns for path in root.glob(pattern) if not path.is_symlink()}
    for path in sorted(paths, key=lambda path: (-path.stat().st_size, path)):
        inside = path.relative_to(root).as_posix()
        if path.is_file() and not any(part in f"/{inside}" for part in package.without):
            yield Found(package, version, root, path)


class Thumbnails:
    """What was seen already, so that the same picture in another size or mirrored is known again."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []

    def add(self, image: Image.Image) -> bool:
        """Whether it is new; it is no longer from then on."""
        row = thumbnail(image)
        seen = np.stack(self.rows) if self.rows else np.zeros((1, len(row)), np.float32)
        if max((seen @ row).max(), (seen @ thumbnail(ImageOps.mirror(image))).max()) >= SAME:
            return False
        self.rows.append(row)
        return True

    def new(self, found: Sequence[Found]) -> list[Found]:
        """Those that are whole pictures, large enough, and were not seen."""
        kept = []
        for item in found:
            image = Image.open(item.path)
            image.draft("RGB", (512, 512))
            opaque = not image.has_transparency_data or image.convert("RGBA").getextrema()[3][0] == 255
            if min(image.size) >= 160 and opaque and self.add(image.convert("RGB")):
                kept.append(item)
        return kept


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    small = image.convert("RGB").resize((16, 16), Image.Resampling.BOX, reducing_gap=4)
    row = np.asarray(small, np.float32).ravel()
    row = row - row.mean()
    result: NDArray[np.float32] = row / max(float(np.linalg.norm(row)), 1e-6)
    return result


def is_cutout(path: Path) -> bool:
    """Large enough, with both visible and transparent parts."""
    image = Image.open(path)
    if min(image.size) < 48 or not image.has_transparency_data:
        return False
    share = np.asarray(image.convert("RGBA").getchannel("A").reduce(8)).mean() / 255
    return bool(0.08 < share < 0.98)


def share_of(source: str) -> float:
    """0 to 1, by the name of a file alone: a new package moves no file to the other side."""
    name = source.rpartition("/")[2]
    return int(hashlib.sha256(f"{SEED} {name}".encode()).hexdigest()[:8], 16) / 2**32


def saved(found: Sequence[Found], out: Path, folder: str) -> Iterator[tuple[str, ...]]:
    """Photos as they are, in JPEG; backgrounds too, and things without the emptiness around them, in WebP,
    for that keeps opacity.

    A name begins with the picture's place, for readers go by names and seeds choose by place, and goes on
    with a hash of all that decides its pixels: what is there under it need not be made again.
    """
    kind = Path(folder).name
    made_by = (sha256_of(Path(__file__)), PIL.__version__)
    for number, item in enumerate(found):
        source = sha256_of(item.path)
        key = hashlib.sha256(" ".join((source, *made_by)).encode()).hexdigest()[:12]
        path = out / folder / f"{number:05d}-{key}.{'jpg' if kind == 'held_out' else 'webp'}"
        if not path.is_file():
            image = Image.open(item.path).convert("RGB" if kind in LONGEST else "RGBA")
            box = image.getchannel("A").getbbox() if image.mode == "RGBA" else None
            image = image.crop(box) if box is not None else image
            longest = LONGEST.get(kind, THING)
            image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
            with written_whole(path) as temporary:
                image.save(temporary, quality=90 if path.suffix == ".jpg" else 80)
        name = path.relative_to(out).as_posix()
        yield name, sha256_of(path), item.package.licence, item.source, source


def clear(out: Path, kept: Iterable[str]) -> None:
    """Delete what ``saved`` made once, or half, and the manifest will not list: folders are read whole."""
    listed = {out / name for name in kept}
    for path in [*out.glob("held_out/*"), *out.glob("ingredients/*/*")]:
        if path not in listed and re.match(r"\.?\d{5}[-.]", path.name):
            path.unlink()


if __name__ == "__main__":
    main()
