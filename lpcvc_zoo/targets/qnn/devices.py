"""Snapdragon chips that the offline compiler is known to compile for, by the names people call them."""

from __future__ import annotations

from dataclasses import dataclass

from lpcvc_zoo.errors import UnknownNameError

DEFAULT_DEVICE = "XR2 Gen 2"


@dataclass(frozen=True)
class Device:
    """A chip as Qualcomm's compiler knows it: ``soc_model`` and the architecture of its NPU (HTP)."""

    name: str
    soc_model: int
    htp_arch: int
    aliases: tuple[str, ...] = ()


# AI Hub's "XR2 Gen 2 (Proxy)" is a QCS8450, the chip of the Snapdragon 8 Gen 1: compiling for it is the same.
DEVICES = (
    Device(
        "XR2 Gen 2",
        36,
        69,
        (
            "XR2 Gen 2 (Proxy)", "Snapdragon XR2 Gen 2", "Snapdragon 8 Gen 1", "Galaxy S22",
            "QCS8450", "SM8450",
        ),
    ),
    Device("Snapdragon 8 Gen 2", 43, 73, ("8 Gen 2", "Galaxy S23", "QCS8550", "SM8550")),
    Device("Snapdragon X Elite", 60, 73, ("X Elite", "Snapdragon X Elite CRD", "SC8380XP")),
    Device("Snapdragon 8 Gen 3", 57, 75, ("8 Gen 3", "Galaxy S24", "SM8650")),
    Device("Snapdragon 8 Elite", 69, 79, ("8 Elite", "Snapdragon 8 Elite QRD", "Galaxy S25", "SM8750")),
    Device("Snapdragon 8 Elite Gen 5", 87, 81, ("8 Elite Gen 5", "Snapdragon 8 Elite Gen 5 QRD", "SM8850")),
)  # fmt: skip


def find_device(name: str) -> Device:
    """The device of that name or alias, in capitals or not; UnknownNameError suggests the nearest."""
    known = {alias.casefold(): device for device in DEVICES for alias in (device.name, *device.aliases)}
    found = known.get(name.casefold().strip())
    if found is not None:
        return found
    names = {alias for device in DEVICES for alias in (device.name, *device.aliases)}
    every = ", ".join(device.name for device in DEVICES)
    raise UnknownNameError("device", name, names, f"The offline compiler is known to work for: {every}.")
