"""Captions that were written for this project, of things that photos show.

A language model wrote them, which was given words and no photo and no text of any benchmark:
``class_captions.tsv`` from the names and definitions of ImageNet's classes, a line for each in their order
(after CuPL, arXiv:2209.03320); ``noun_captions.tsv``, in lower case, from the nouns for visible things that
occur in the texts whose words WordNet counted, without those classes and some slurs, and from its named
artefacts. Ten a line.
"""

from __future__ import annotations

from pathlib import Path

CLASSES = Path(__file__).with_name("class_captions.tsv")
NOUNS = Path(__file__).with_name("noun_captions.tsv")


def captions() -> list[str]:
    """All of them."""
    return [caption for path in (CLASSES, NOUNS) for line in of(path) for caption in line]


def of(path: Path) -> list[list[str]]:
    """The columns of each line."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
