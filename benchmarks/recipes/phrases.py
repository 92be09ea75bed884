"""Short descriptions of things, made from lists of nouns: what singles out a thing in a photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

COLOURS = (
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "beige",
    "dark", "light", "dark blue", "light blue", "dark green", "light green", "golden", "silver", "turquoise",
    "cream", "navy", "maroon", "tan", "teal", "pale pink", "black and white", "red and white",
    "blue and white",
    "brown and white", "orange and black", "yellow and black", "colourful", "striped", "spotted",
)  # fmt: skip
SIZES = ("small", "large", "big", "little", "tall", "short", "long", "wide", "narrow", "round", "old", "new")
MATERIALS = (
    "wooden", "metal", "stone", "brick", "glass", "plastic", "leather",
    "rusty", "shiny", "furry", "steel",
    "concrete", "woven", "painted", "wet", "broken", "empty", "open", "folded", "curved", "pointed", "fluffy",
)  # fmt: skip
PARTS = (
    "roof", "handle", "handles", "wheels", "stripes", "spots", "door", "windows", "tail", "wings", "beak",
    "legs", "eyes", "ears",
    "fur", "feathers", "petals", "leaves", "dome", "tower", "towers", "columns", "arch",
    "hat", "shirt", "jacket", "helmet", "collar", "lid", "label", "edge", "frame", "seat", "cover", "stem",
    "horns", "mane", "fins", "blade", "button", "strap", "sleeves", "sail", "hull", "steps", "bars", "cap",
)  # fmt: skip
PLACES = (
    "in the grass", "on the beach", "in the water", "on a table", "on the ground", "on a white background",
    "on a black background", "in front of a building", "under a blue sky", "in the snow", "on a rock",
    "among trees", "by a river", "in a field", "on the street", "at night", "in the sea", "on a branch",
    "in a forest", "beside a lake", "on sand", "on a shelf", "on a wall", "in the sunlight", "on the left",
    "on the right", "in the middle", "at the top", "at the bottom", "in the background", "in the foreground",
    "at the back", "in the corner", "under cloudy skies", "above gravel", "at sunset", "behind a fence",
)  # fmt: skip
RELATIONS = (
    "next to", "on", "in front of", "behind", "under", "above", "near", "beside", "to the left of",
    "to the right of", "inside", "on top of", "with", "and", "between", "holding", "full of", "beyond",
)  # fmt: skip
STATES = (
    "sitting", "standing", "lying down", "walking", "running", "flying", "swimming", "eating", "looking left",
    "looking at the camera", "seen from above", "seen from the side", "facing right", "half hidden", "parked",
)  # fmt: skip
COUNTS = ("two", "three", "four", "several", "many", "a pair of", "a group of", "a row of", "a pile of")


def described(nouns: Sequence[str], common: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """``count`` descriptions; ``common`` are nouns that also serve as the second thing of a description."""
    random = np.random.default_rng(seed)

    def one(items: Sequence[str]) -> str:
        return items[int(random.integers(len(items)))]

    def thing(items: Sequence[str]) -> str:
        kind = random.random()
        noun = one(items)
        if kind < 0.35:
            return with_article(noun)
        if kind < 0.7:
            return with_article(f"{one(COLOURS)} {noun}")
        if kind < 0.8:
            return with_article(f"{one(SIZES)} {noun}")
        if kind < 0.9:
            return with_article(f"{one(MATERIALS)} {noun}")
        return with_article(f"{one(SIZES)} {one(COLOURS)} {noun}")

    for _ in range(count):
        first = thing(nouns if random.random() < 0.3 else common)
        match int(random.integers(8)):
            case 0:
                text = first
            case 1:
                text = f"{first} with {one(COLOURS)} {one(PARTS)}"
            case 2:
                text = f"{first} {one(PLACES)}"
            case 3:
                text = f"{first} {one(RELATIONS)} {thing(common)}"
            case 4:
                text = f"{first} {one(STATES)}"
            case 5:
                text = f"{one(COUNTS)} {one(COLOURS)} {plural(one(common))}"
            case 6:
                text = f"{first} with {with_article(one(PARTS))} {one(PLACES)}"
            case _:
                text = f"{first} {one(STATES)} {one(PLACES)}"
        if random.random() < 0.25:
            text = text.replace("a ", "the ", 1) if text.startswith("a ") else text
        yield f"{text}." if random.random() < 0.5 else text


def with_article(noun: str) -> str:
    """The noun with "a" or "an", and names as they are."""
    if noun[:1].isupper():
        return noun
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """A plain English plural; a wrong one now and then does no harm here."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
