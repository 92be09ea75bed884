"""The recipe that collects free pictures: what it reads, makes and keeps out."""

from __future__ import annotations

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
