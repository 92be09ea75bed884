"""The recipe that collects free pictures: what it reads, makes and keeps out."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from lpcvc_zoo.data import PHOTOS
from lpcvc_zoo.files import sha256_of

RECIPES = Path(__file__).parent.parent / "benchmarks" / "recipes"


@pytest.fixture(scope="module", autouse=True)
def recipes():
    """The recipes are scripts: they find one another beside themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        yield
        for name in ("collect_pictures", "emoji", "qt_resources"):
            sys.modules.pop(name, None)


def resource(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A Qt resource of version 1 with one folder "art"; each file with its content and flags."""
    names, places = b"", {}
    for name in ("art", *files):
        places[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", places["art"], 2, len(files), 2)
    contents = b""
    for name, (content, flags) in files.items():
        tree += struct.pack(">IHHHI", places[name], flags, 0, 0, len(contents))
        contents += struct.pack(">I", len(content)) + content
    start = 20
    head = struct.pack(">4siiii", b"qres", 1, start, start + len(tree), start + len(tree) + len(contents))
    return head + tree + contents + names


def test_a_qt_resource_gives_its_files_packed_or_not() -> None:
    from qt_resources import files_of

    packed = struct.pack(">I", 5) + zlib.compress(b"hello")
    found = dict(files_of(resource({"plain.webp": (b"bytes", 0), "packed.webp": (packed, 1)})))
    assert found == {"/art/plain.webp": b"bytes", "/art/packed.webp": b"hello"}
    with pytest.raises(ValueError, match="Zstandard"):
        list(files_of(resource({"other": (b"", 4)})))
    with pytest.raises(ValueError, match="no compiled Qt resource"):
        list(files_of(b"RIFF" + bytes(40)))


def test_emoji_of_things_come_out_of_an_npm_package_and_faces_do_not(tmp_path, monkeypatch) -> None:
    import emoji

    icons = {
        "width": 36,
        "height": 36,
        "icons": {"cat": {"body": "<path/>", "width": 40}, "grin": {"body": "<g/>"}},
    }
    named = {key: ["tabby"] for key in emoji.CATEGORIES} | {"Animals & Nature": ["cat"], "Smileys": ["grin"]}
    with tarfile.open(tmp_path / "set-1.2.3.tgz", "w:gz") as archive:
        for name, document in (("icons", icons), ("metadata", {"categories": named})):
            content = json.dumps(document).encode()
            member = tarfile.TarInfo(f"package/{name}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    said = json.dumps([{"filename": "set-1.2.3.tgz", "version": "1.2.3"}])
    npm.write_text(f"#!/bin/sh\ncp {tmp_path}/set-1.2.3.tgz . && echo '{said}'\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(emoji, "drawn", str.encode)  # resvg is no package of the tests
    assert emoji.fetch_emoji("@some/set", tmp_path / "set") == "1.2.3"
    (path,) = (tmp_path / "set").rglob("*.png")
    assert path.relative_to(tmp_path / "set").as_posix() == "Animals & Nature/cat.png"
    assert path.read_text().endswith('viewBox="0 0 40 36"><path/></svg>')


def test_emoji_are_drawn_again_where_their_script_has_changed(tmp_path, monkeypatch) -> None:
    import collect_pictures
    import emoji

    drawn: list[str] = []

    def draw(name: str, root: Path) -> str:
        assert not root.exists()
        root.mkdir(parents=True)
        drawn.append(name)
        return "1.2.3"

    monkeypatch.setattr(emoji, "fetch_emoji", draw)
    package = collect_pictures.Package("@some/set", "free", emoji=("*/*.png",))
    script = tmp_path / "emoji.py"
    monkeypatch.setattr(emoji, "__file__", str(script))
    for text in ("one", "one", "another"):
        script.write_text(text)
        assert collect_pictures.fetched(package, tmp_path)[1:] == ("1.2.3", tmp_path / "@some/set")
    assert len(drawn) == 2


def test_ingredients_are_small_and_things_lose_what_is_empty_around_them(tmp_path) -> None:
    from collect_pictures import LONGEST, PACKAGES, THING, Found, saved

    thing = Image.new("RGBA", (900, 600))
    ImageDraw.Draw(thing).rectangle((300, 200, 699, 299), fill=(255, 0, 255, 128))
    thing.save(tmp_path / "thing.png")
    Image.new("RGB", (1600, 1000), (0, 90, 0)).save(tmp_path / "ground.jpg")
    found = {name: Found(PACKAGES[0], "1", tmp_path, tmp_path / name) for name in ("thing.png", "ground.jpg")}
    (row,) = saved([found["thing.png"]], tmp_path, "ingredients/cutouts")
    small = Image.open(tmp_path / row[0])
    assert small.size == (THING, THING // 4)
    assert row[-1] == sha256_of(tmp_path / "thing.png") != row[1]
    assert small.convert("RGBA").getpixel((THING // 2, 10))[3] == 128
    (row,) = saved([found["ground.jpg"]], tmp_path, "ingredients/backgrounds")
    assert Image.open(tmp_path / row[0]).size == (LONGEST["backgrounds"], LONGEST["backgrounds"] * 5 // 8)


@pytest.fixture
def collect(monkeypatch, tmp_path):
    """The command, on a package that was unpacked; of its photos "hill" is held out, which hangs on names."""
    import collect_pictures

    package = collect_pictures.Package("set", "free", photos=("photos/*.jpg",), cutouts=("things/*.png",))
    monkeypatch.setattr(collect_pictures, "PACKAGES", (package,))
    monkeypatch.setattr(collect_pictures, "fetched", lambda given, _: (given, "1", tmp_path / "set"))
    monkeypatch.setattr(sys, "argv", ["collect_pictures.py", str(tmp_path / "pictures")])
    for seed, name in enumerate(("hill", "lake", "sea", "tree")):
        photo(tmp_path / f"set/photos/{name}.jpg", seed)
    thing = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(thing).rectangle((20, 20, 70, 50), fill=(255, 0, 255, 255))
    (tmp_path / "set/things").mkdir()
    thing.save(tmp_path / "set/things/thing.png")
    return collect_pictures.main


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((320, 240), Image.Resampling.NEAREST).save(path)


def manifest(folder: Path) -> dict[str, dict[str, str]]:
    """By file; each is there as it is listed, shows what it is said to be made of, and nothing else is."""
    with (folder / "manifest.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    there = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".jpg", ".webp")
    }
    assert there == rows.keys()
    assert list(rows) == sorted(rows)  # seeds choose by the order of names
    for name, row in rows.items():
        source = folder.parent / "set" / row["made_of"].partition(": ")[2]
        assert row["sha256"] == sha256_of(folder / name)
        assert row["source_sha256"] == sha256_of(source)
        if source.suffix == ".jpg":
            shown, own = (
                np.asarray(Image.open(path).convert("RGB"), float) for path in (source, folder / name)
            )
            assert np.abs(shown - own).mean() < 10
    return rows


def test_collected_anew_every_picture_is_the_one_that_the_manifest_lists_and_no_other_is_there(
    collect, tmp_path
) -> None:
    pictures = tmp_path / "pictures"
    collect()
    before = manifest(pictures)
    assert {Path(name).parent.as_posix() for name in before} == {
        "held_out",
        "ingredients/backgrounds",
        "ingredients/cutouts",
    }
    (tmp_path / "set/photos/lake.jpg").unlink()
    photo(tmp_path / "set/photos/tree.jpg", seed=9)
    ground = pictures / "ingredients/backgrounds"
    for name in ("00000.webp", ".00000-0123456789ab.webp.abcdefgh.webp"):  # an earlier form's, a killed run's
        Image.new("RGB", (200, 200)).save(ground / name)
    collect()
    assert len(manifest(pictures)) == len(before) - 1


def test_pictures_of_ones_own_beside_those_that_are_collected_stay(collect, tmp_path) -> None:
    own = tmp_path / "pictures/held_out/holiday.jpg"
    photo(own, seed=5)
    collect()
    assert own.is_file()


def test_collecting_that_was_stopped_makes_no_picture_twice_but_all_where_the_script_has_changed(
    collect, tmp_path, monkeypatch
) -> None:
    import collect_pictures

    made: list[Path] = []
    save = Image.Image.save

    def saves(image: Image.Image, path: Path, **options: object) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        save(image, path, **options)
        made.append(path)

    monkeypatch.setattr(Image.Image, "save", saves)
    with pytest.raises(KeyboardInterrupt):
        collect()
    monkeypatch.setattr(
        Image.Image, "save", lambda *given, **options: made.append(given[1]) or save(*given, **options)
    )
    collect()
    assert len(made) == len(manifest(tmp_path / "pictures")) == 5
    changed = tmp_path / "collect_pictures.py"
    changed.write_text("# another")
    monkeypatch.setattr(collect_pictures, "__file__", str(changed))
    collect()
    assert len(made) == 2 * len(manifest(tmp_path / "pictures"))


def test_a_photo_of_the_benchmark_is_known_again_smaller_mirrored_or_saved_anew() -> None:
    from collect_pictures import Thumbnails

    known = Thumbnails()
    first, *others = (Image.open(path) for path in sorted((PHOTOS / "images").iterdir())[:12])
    assert known.add(first)
    smaller = first.convert("RGB").resize((first.width // 2, first.height // 2))
    saved = io.BytesIO()
    smaller.save(saved, "JPEG", quality=60)
    for changed in (smaller, ImageOps.mirror(first), Image.open(saved)):
        assert not known.add(changed)
    assert all(known.add(other) for other in others)


def test_a_package_that_grows_moves_no_photo_to_the_other_side() -> None:
    from collect_pictures import HELD_OUT, share_of

    names = [f"package 1: photos/{number}.jpg" for number in range(2000)]
    shares = np.array([share_of(name) for name in names])
    assert (shares < HELD_OUT).mean() == pytest.approx(HELD_OUT, abs=0.05)
    assert [share_of(name.replace("package 1", "package 2")) for name in names] == shares.tolist()
