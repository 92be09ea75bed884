"""Words that a flip or a crop makes false, and colours: how false texts are made from true ones."""

from __future__ import annotations

import re
from itertools import pairwise
from zlib import crc32

from lpcvc_zoo.retrieval.records import text_key

_MIRRORED = {
    "left": "right",
    "leftmost": "rightmost",
    "leftward": "rightward",
    "leftwards": "rightwards",
    "lefthand": "righthand",
    "clockwise": "anticlockwise",
    "west": "east",
    "western": "eastern",
}
MIRROR = _MIRRORED | {there: here for here, there in _MIRRORED.items()} | {"counterclockwise": "clockwise"}
PLACES = (
    "top", "topmost", "upper", "uppermost", "bottom", "lower", "corner", "corners", "middle", "center",
    "centre", "central", "side", "sides", "edge", "edges", "above", "below", "beneath", "underneath", "under",
    "behind", "front", "foreground", "back", "background", "between", "beside", "next to",
)  # fmt: skip
COLOURS = (
    "black", "white", "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "grey", "silver",
    "golden", "beige", "turquoise",
)  # fmt: skip
_SAME = {"gray": "grey", "gold": "golden"}  # another spelling or form of the colour
_DIRECTION = re.compile(rf"\b({'|'.join(sorted(MIRROR, key=len, reverse=True))})\b", re.IGNORECASE)
_PLACE = re.compile(rf"\b({'|'.join(PLACES)})\b", re.IGNORECASE)
_COLOUR = re.compile(rf"\b({'|'.join((*COLOURS, *_SAME))})\b", re.IGNORECASE)
# What stands between two that may change places with nothing said differently: "black and white"
_JOINED = re.compile(r"[\s,/&+-]*(?:(?:and|or)\s+)?(?:(?:an?|the)\s+)?", re.IGNORECASE)
_ARTICLE = re.compile(rf"\b(an?) (?=({'|'.join(COLOURS)})\b)", re.IGNORECASE)


def names_direction(text: str) -> bool:
    """Whether a mirrored image would make the text false. "right" counts even where it means correct."""
    return _DIRECTION.search(text) is not None


def names_place(text: str) -> bool:
    """Whether a crop could make the text false: it says where something is, in the image or beside what."""
    return names_direction(text) or _PLACE.search(text) is not None


def mirrored(text: str) -> str:
    """The text with left and right exchanged: true of the mirrored image."""
    return _DIRECTION.sub(lambda match: _as_written(match[0], MIRROR[match[0].lower()]), text)


def false_texts(text: str, count: int) -> list[str]:
    """At most ``count`` texts that differ in a direction or in colours; the same ones every time.

    Left and right exchanged, then two colours exchanged, then one colour replaced by another. Never two that
    are joined: what is black and white is white and black.
    """
    directions, places = list(_DIRECTION.finditer(text)), list(_COLOUR.finditer(text))
    made = [] if any(_joined(text, *pair) for pair in pairwise(directions)) else [mirrored(text)]
    for one, other in pairwise(places):
        if _colour(one) != _colour(other) and not _joined(text, one, other):
            made.append(_replaced(text, [(one, other[0]), (other, one[0])]))
    present = {_colour(place) for place in places}
    others = [colour for colour in COLOURS if colour not in present]
    for step in range(count):
        for place in places:
            choice = others[(crc32(f"{text}|{place.start()}".encode()) + step) % len(others)]
            made.append(_replaced(text, [(place, choice)]))
    by_key = {text_key(item): item for item in made if text_key(item) != text_key(text)}
    return list(by_key.values())[:count]


def _colour(place: re.Match[str]) -> str:
    word = place[0].lower()
    return _SAME.get(word, word)


def _joined(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    return _JOINED.fullmatch(text[one.end() : other.start()]) is not None


def _replaced(text: str, changes: list[tuple[re.Match[str], str]]) -> str:
    for place, word in sorted(changes, key=lambda change: -change[0].start()):
        text = text[: place.start()] + _as_written(place[0], word.lower()) + text[place.end() :]
    # "a orange car" would give the false text away
    return _ARTICLE.sub(lambda match: match[1][0] + ("n " if match[2].lower() == "orange" else " "), text)


def _as_written(old: str, new: str) -> str:
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
