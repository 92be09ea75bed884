"""Gather English texts with free licences that packages carry: what the small text transformers learn from.

    python benchmarks/recipes/collect_texts.py --out recipes-data/texts

Sources: WordNet 3.0 (Debian's wordnet-base: lemmas and glosses of things that can be seen), the ImageNet
class names in open_clip (MIT), labels and tags of emoji (npm's emojibase-data, MIT), words in the file
names of Open Clipart's drawings (Debian's openclipart-png, public domain), and descriptions generated from
these nouns. ``apt-get`` and ``npm`` fetch the packages. Writes ``texts.txt``, one a line, beside it
``captions.txt`` with those that were written for this project (``captions.py``), and ``sources.json`` with
counts, versions, licences and the two files' sha256.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from captions import captions
from phrases import described, with_article

from lpcvc_zoo.files import folder_written_whole, sha256_of

SEED = 0
# WordNet's files of nouns that stand for what can be seen: artifact, food, location, object, phenomenon,
# shape; and those with many words for few looks: animal, person, plant, substance
SEEN = frozenset({"06", "13", "15", "17", "19", "25"})
RARE = frozenset({"05", "18", "20", "27"})  # of these the first word of each sense, and no names
THINGS = frozenset({"05", "06", "13", "17", "18", "20"})  # of which descriptions are made
MOST_WORDS = 14  # of a gloss
LICENCES = {
    "wordnet": "WordNet licence (free use with notice)",
    "imagenet": "MIT (open_clip)",
    "emoji": "MIT (emojibase-data)",
    "clipart": "public domain (Open Clipart)",
    "generated": "Apache-2.0 (this project)",
    "captions": "Apache-2.0 (this project)",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description="Gather texts with free licences to learn from.")
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--generated", type=int, default=80_000, help="how many descriptions to generate")
    options = arguments.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    gathered = gather(out / "packages", options.generated)
    seen: set[str] = set()
    counts = {}
    for source, texts in gathered.items():
        fresh = [
            text for text in dict.fromkeys(map(_clean, texts)) if len(text) > 1 and text.lower() not in seen
        ]
        seen.update(text.lower() for text in fresh)
        gathered[source], counts[source] = fresh, len(fresh)
    lines = [text for texts in gathered.values() for text in texts]
    written = list(dict.fromkeys(captions()))
    (out / "texts.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "captions.txt").write_text("\n".join(written) + "\n", encoding="utf-8")
    facts = {
        "sha256": {name: sha256_of(out / name) for name in ("texts.txt", "captions.txt")},
        "texts": len(lines),
        "captions": len(written),
        "of": counts,
        "licences": LICENCES,
        "packages": versions(out / "packages"),
    }
    (out / "sources.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


def gather(packages: Path, generated: int) -> dict[str, list[str]]:
    """Texts by source, in a fixed order."""
    from open_clip import IMAGENET_CLASSNAMES

    wordnet = debian("wordnet-base", packages) / "usr/share/wordnet"
    nouns, glosses = visible_nouns(wordnet)
    common = [*sorted(frequent(wordnet) & set(nouns)), *IMAGENET_CLASSNAMES]
    classes = list(IMAGENET_CLASSNAMES)
    names = [noun for noun in nouns if not noun[:1].isupper()]
    return {
        "imagenet": [form for name in classes for form in (name, f"a photo of {with_article(name)}.")],
        "wordnet": [*(with_article(noun) for noun in nouns), *glosses],
        "emoji": list(emoji(npm("emojibase-data", packages))),
        "clipart": list(titles(debian_names("openclipart-png", packages))),
        "generated": list(described(names, common, generated, SEED)),
    }


def visible_nouns(wordnet: Path) -> tuple[list[str], list[str]]:
    """Lemmas of visible things, and glosses of those short enough, without genera of biology."""
    lemmas: dict[str, None] = {}
    glosses: dict[str, None] = {}
    for line in (wordnet / "data.noun").read_text(encoding="latin-1").splitlines():
        file = line.split(" ", 2)[1]
        if line.startswith(" ") or file not in SEEN | RARE:
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split(" ")
        words = [fields[4 + 2 * place].replace("_", " ") for place in range(int(fields[3], 16))]
        if re.search(r"\bgenus\b|\bfamily\b|\bgenera\b", gloss) or re.match("genus |family ", words[0]):
            continue
        if file in RARE:
            words = words[:1]
            if words[0][:1].isupper():
                continue
        lemmas.update(dict.fromkeys(word for word in words if len(word.split()) <= 4))
        short = gloss.split(";")[0].split("(")[-1 if gloss.startswith("(") else 0].strip().replace(")", "")
        if 2 < len(short.split()) <= MOST_WORDS:
            glosses[f"{words[0]}: {short}" if len(short.split()) < 6 else short] = None
    return list(lemmas), list(glosses)


def frequent(wordnet: Path) -> set[str]:
    """Names of things that WordNet's texts use at least twice in that sense, by its own counts."""
    lines = (wordnet / "cntlist.rev").read_text(encoding="latin-1").splitlines()
    found = set()
    for line in lines:
        sense, _, count = line.split(" ")
        lemma, _, key = sense.partition("%")
        if key.startswith("1:") and key[2:4] in THINGS and int(count) >= 2:
            found.add(lemma.replace("_", " "))
    return found


def emoji(folder: Path) -> Iterator[str]:
    for item in json.loads((folder / "en/compact.json").read_text(encoding="utf-8")):
        yield item["label"]
        yield from item.get("tags", ())
        if "tags" in item:
            yield ", ".join([item["label"], *item["tags"][:3]])


def titles(names: Iterable[str]) -> Iterator[str]:
    """What Open Clipart's file names say: "big_cats/tigre02_architetto.png" is "tigre architetto"."""
    for name in names:
        if name.endswith(".png"):
            words = re.sub(r"[^A-Za-z]+", " ", Path(name).stem).lower().split()
            if any(len(word) > 2 for word in words):
                yield " ".join(words)


def debian(package: str, packages: Path) -> Path:
    """A Debian package's files, fetched and unpacked below ``packages`` where they are not there yet."""
    folder = packages / package
    if not folder.exists():
        archive = debian_archive(package, packages)
        with folder_written_whole(folder) as temporary:
            subprocess.run(["dpkg", "-x", archive, temporary], check=True)
    return folder


def debian_names(package: str, packages: Path) -> list[str]:
    listing = subprocess.run(
        ["dpkg", "-c", debian_archive(package, packages)], check=True, capture_output=True, text=True
    )
    return sorted(line.rpartition(" ./")[2] for line in listing.stdout.splitlines())


def debian_archive(package: str, packages: Path) -> Path:
    packages.mkdir(parents=True, exist_ok=True)
    for archive in packages.glob(f"{package}_*.deb"):
        return archive
    with TemporaryDirectory(dir=packages) as folder:  # apt-get gives half a file the name of a whole one
        subprocess.run(["apt-get", "download", "-q", package], check=True, cwd=folder)
        (archive,) = Path(folder).iterdir()
        return archive.rename(packages / archive.name)


def npm(package: str, packages: Path) -> Path:
    """An npm package's files, likewise."""
    folder = packages / package.replace("/", "_").lstrip("@")
    if not folder.exists():
        packages.mkdir(parents=True, exist_ok=True)
        told = subprocess.run(
            ["npm", "pack", "--silent", package], check=True, cwd=packages, capture_output=True, text=True
        )
        with (
            tarfile.open(packages / told.stdout.split()[-1]) as archive,
            folder_written_whole(folder) as temporary,
        ):
            archive.extractall(temporary, filter="data")
    return folder / "package"


def versions(packages: Path) -> list[str]:
    return sorted(path.name for path in packages.iterdir() if path.suffix in (".deb", ".tgz"))


def _clean(text: str) -> str:
    return " ".join(text.replace("`", "").split())


if __name__ == "__main__":
    main()
