"""The service's devices: found by name, chipset or attribute, and checked before a job is sent to one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from lpcvc_zoo.errors import UnknownNameError

DEFAULT_DEVICE = "XR2 Gen 2 (Proxy)"
PRECISIONS = ("float", "w8a16", "w8a8")
FRAMEWORKS = {  # by runtime: what a device's attributes must name
    "qnn_dlc": "qnn",
    "qnn_context_binary": "qnn",
    "precompiled_qnn_onnx": "onnx",
    "onnx": "onnx",
    "tflite": "tflite",
}
ON_NPU = ("qnn_dlc", "qnn_context_binary", "precompiled_qnn_onnx")  # these can't fall back to the CPU
GROUPS = {"all-phones": "format:phone", "all-tablets": "format:tablet"}
FP16 = "htp-supports-fp16:true"


class DeviceInfo(BaseModel):
    """A device of the service and its attributes, such as "chipset:qualcomm-snapdragon-8gen3"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    os: str
    attributes: tuple[str, ...]

    def values(self, attribute: str) -> tuple[str, ...]:
        """What the attributes of that name say: ``values("hexagon")`` -> ``("v73",)``."""
        start = f"{attribute}:"
        return tuple(value.removeprefix(start) for value in self.attributes if value.startswith(start))

    @property
    def fp16(self) -> bool:
        return FP16 in self.attributes


def find_devices(query: str, devices: Iterable[DeviceInfo]) -> tuple[DeviceInfo, ...]:
    """Devices by exact name, chipset, attribute or group ("all-phones"), newest system first.

    UnknownNameError suggests the nearest names where nothing matches.
    """
    everything = sorted(devices, key=lambda device: device.name)
    named = [device for device in everything if device.name == query]
    wanted = GROUPS.get(query, query)
    found = named or [
        device for device in everything if wanted in device.attributes or wanted in device.values("chipset")
    ]
    if not found:
        known = {device.name for device in everything} | set(GROUPS)
        known |= {chipset for device in everything for chipset in device.values("chipset")}
        raise UnknownNameError("device", query, known, "See `lpcvc-zoo devices`.")
    return tuple(sorted(found, key=_version, reverse=True))


def problems(device: DeviceInfo, runtime: str, precision: str) -> list[str]:
    """Why a device can't run a model of that runtime and precision; empty where nothing speaks against it."""
    found: list[str] = []
    framework, offered = FRAMEWORKS[runtime], device.values("framework")
    if framework not in offered:
        others = [name for name, needs in FRAMEWORKS.items() if needs in offered]
        advice = f"choose one of the runtimes {', '.join(others)}" if others else "choose another device"
        found.append(
            f"runtime {runtime} needs the framework {framework!r}, "
            f"but {device.name} has {', '.join(offered) or 'none'}: {advice}"
        )
    if precision == "float" and runtime in ON_NPU and device.values("hexagon") and not device.fp16:
        found.append(
            f"the NPU of {device.name} (Hexagon {device.values('hexagon')[0]}) computes integers only: "
            "use the precision w8a16 or w8a8, or choose another device"
        )
    return found


def _version(device: DeviceInfo) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", device.os)]
