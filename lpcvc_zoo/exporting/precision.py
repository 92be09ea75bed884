"""Precisions by name: of a whole model ("w8a16"), or tower by tower ("image=w8a16+text=float")."""

from __future__ import annotations

from lpcvc_zoo.contract import TOWERS, Tower
from lpcvc_zoo.errors import ExportError, UnknownNameError

FLOAT = "float"
PRECISIONS = (FLOAT, "w8a16", "w8a8")  # bits of weights and of activations


def by_tower(precision: str) -> dict[Tower, str]:
    """Each tower's precision; one that is not named stays float.

    UnknownNameError suggests the nearest name; ExportError where a tower is named twice.
    """
    if "=" not in precision:
        return dict.fromkeys(TOWERS, _known(precision))
    chosen: dict[Tower, str] = {}
    for part in precision.replace(",", "+").split("+"):
        name, _, value = part.partition("=")
        tower = next((tower for tower in TOWERS if tower == name.strip()), None)
        if tower is None:
            raise UnknownNameError("tower", name.strip(), TOWERS)
        if tower in chosen:
            raise ExportError(f"{precision!r} names the {tower} tower twice: expected each tower once.")
        chosen[tower] = _known(value.strip())
    return {tower: chosen.get(tower, FLOAT) for tower in TOWERS}


def canonical(precision: str) -> str:
    """One spelling for one meaning: "image=w8a8+text=w8a8" is "w8a8"."""
    chosen = by_tower(precision)
    if len(set(chosen.values())) == 1:
        return chosen["image"]
    return "+".join(f"{tower}={chosen[tower]}" for tower in TOWERS)


def _known(precision: str) -> str:
    if precision not in PRECISIONS:
        hint = "Tower by tower: image=w8a16+text=float."
        raise UnknownNameError("precision", precision, PRECISIONS, hint)
    return precision
