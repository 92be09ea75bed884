"""What a sweep is asked to do, and the targets it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lpcvc_zoo.bench.steps import Tools
from lpcvc_zoo.errors import TargetError, ZooError
from lpcvc_zoo.exporting.artifact import Manifest
from lpcvc_zoo.exporting.precision import FLOAT, canonical
from lpcvc_zoo.retrieval import photos
from lpcvc_zoo.retrieval.calibration import Calibration
from lpcvc_zoo.targets import expand_devices, get_target, options_of
from lpcvc_zoo.targets.base import Target


class SweepOptions(BaseModel):
    """What to sweep and how. ``models`` are patterns as in ``plan.select``; none means the default,
    or none at all where ``artifacts`` are given: folders made by export or adopt.

    ``pretrained``: published weights always (True), never (False), or where they are on this machine (None).

    ``jobs`` exports run beside each other (default: one a CPU, four at most); ``threads``, ``runtime``,
    ``series`` and what else is not None are the target's. ``devices`` may hold groups such as "all-phones".
    ``in_flight``: how many models may have their jobs at remote targets at once.

    ``text_lengths``: tokens that the text sequence is cut to, one row for each; none means full length.
    ``text_depths``: likewise layers that the text transformer keeps; a tower that is no stack stays whole.

    ``rewrites``: as in ``export``; None means what suits each target. ``precisions``: as in ``quantize``;
    ``calibration`` names the data that calibrate a quantised one; none of its images may be scored. With one,
    also among the ``artifacts``, the bundled photos are scored without those that calibrate it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[str, ...] = ()
    artifacts: tuple[Path, ...] = ()
    targets: tuple[str, ...] = ("onnxruntime",)
    devices: tuple[str, ...] = ()
    runtime: str | None = None
    contracts: tuple[str, ...] = ("lpcvc2026",)
    precisions: tuple[str, ...] = ("float",)
    text_lengths: tuple[Annotated[int, Field(ge=3)], ...] = ()
    text_depths: tuple[Annotated[int, Field(ge=1)], ...] = ()
    rewrites: str | None = None
    calibration: str = photos.CALIBRATION
    series: str | None = None
    dataset: str = photos.NAME
    out: Path = Path("results")
    quick: bool = False
    pretrained: bool | None = None
    force: bool = False
    jobs: int | None = Field(default=None, ge=1)
    in_flight: int = Field(default=8, ge=1)
    threads: int | None = Field(default=None, ge=1)
    evaluate_untrained: bool = False
    fail_on_error: bool = False


def make_targets(options: SweepOptions, tools: Tools) -> list[Target]:
    """Every named target, for each of the devices and, where it quantises itself, precisions.

    Each gets those of the options that it takes. TargetError where none takes one.
    """
    names = list(dict.fromkeys(options.targets))
    takes = {name: options_of(name) for name in names}
    wanted = {"runtime": options.runtime, "series": options.series, "threads": options.threads}
    for option, value in {**wanted, "device": options.devices or None}.items():
        if value is not None and not any(option in taken for taken in takes.values()):
            raise TargetError(f"{option} {value!r}: no target of {', '.join(names)} takes that option.")
    by_itself = any("precision" in taken for taken in takes.values())
    settings = _quantised(options, tools) if by_itself else []  # reads the calibration data: once
    made: list[Target] = []
    for name in names:
        given = {option: value for option, value in wanted.items() if option in takes[name]}
        devices = expand_devices(name, options.devices) if "device" in takes[name] else ()
        for device in devices or (None,):
            where = {} if device is None else {"device": device}
            for quantised in settings if "precision" in takes[name] else [{}]:
                made.append(get_target(name, **given, **where, **quantised))
    return made


def refuse_idle(options: SweepOptions, manifests: Sequence[Manifest], targets: Sequence[Target]) -> None:
    """ZooError for options that shape exports, where every model is exported already.

    A precision applies all the same where an artifact has it or a target makes it.
    """
    made_there = {getattr(target, "precision", FLOAT) for target in targets}
    precisions = {FLOAT, *made_there, *(manifest.precision for manifest in manifests)}
    contracts = {manifest.contract for manifest in manifests}
    idle = {
        "contract": "contracts" in options.model_fields_set and not contracts.issuperset(options.contracts),
        "precision": not precisions.issuperset(map(canonical, options.precisions)),
        "calibration": options.calibration != photos.CALIBRATION and made_there == {FLOAT},
        "rewrites": options.rewrites is not None,
        "text-length": bool(options.text_lengths),
        "text-depth": bool(options.text_depths),
        "pretrained": options.pretrained is True,
        "untrained": options.pretrained is False,
        "quick": options.quick,
    }
    if given := [f"--{option}" for option, changes_nothing in idle.items() if changes_nothing]:
        raise ZooError(
            f"The artifacts are made already: expected no {', '.join(given)}. Leave that out, or name models "
            "for it with --models."
        )


def _quantised(options: SweepOptions, tools: Tools) -> list[dict[str, Any]]:
    """What a target that quantises by itself is told for each precision."""
    precisions = [canonical(precision) for precision in options.precisions]
    if set(precisions) == {FLOAT}:
        return [{}]
    calibration = Calibration(tools.load_dataset(options.calibration))
    return [
        {} if precision == FLOAT else {"precision": precision, "calibration": calibration}
        for precision in precisions
    ]
