"""Where towers are compiled, measured and run: looked up by name, third parties' by entry point.

A plugin adds a line to its own pyproject.toml and takes the same road as the built-in targets::

    [project.entry-points."lpcvc_zoo.targets"]
    my_board = "my_package.targets:MyBoard"

This file imports nothing heavy: the measuring child process passes through it.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from lpcvc_zoo.errors import RegistryError, TargetError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lpcvc_zoo.targets.base import Target

GROUP = "lpcvc_zoo.targets"
BUILT_IN = {
    "onnxruntime": "lpcvc_zoo.targets.onnxruntime:OnnxRuntimeTarget",
    "qnn": "lpcvc_zoo.targets.qnn.target:QnnTarget",
}


def list_targets() -> list[str]:
    """Names of all targets, built-in and third-party, sorted. Loads none of them."""
    return sorted({*BUILT_IN, *_plugins()})


def get_target(name: str = "onnxruntime", **options: Any) -> Target:
    """The target of that name, made with ``options`` (each target documents its own; None means default).

    UnknownNameError suggests the nearest name; TargetError names an option the target does not take, or
    the distribution whose target can't be loaded.
    """
    factory = _factory(name)
    given = {key: value for key, value in options.items() if value is not None}
    try:
        inspect.signature(factory).bind(**given)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "no options"
        raise TargetError(
            f"Target {name!r} can't be made with {given}: {error}. It takes: {takes}."
        ) from None
    return factory(**given)


def get_targets(names: Sequence[str], **options: Any) -> list[Target]:
    """One target a name, each made with those of ``options`` that it takes.

    A device, for one, is for the targets that have several. TargetError where no target takes an option.
    """
    targets = list(dict.fromkeys(names))
    taken = {name: set(inspect.signature(_factory(name)).parameters) for name in targets}
    for option, value in options.items():
        if value is not None and not any(option in takes for takes in taken.values()):
            raise TargetError(f"{option}={value!r}: no target of {', '.join(targets)} takes that option.")
    return [
        get_target(name, **{key: value for key, value in options.items() if key in taken[name]})
        for name in targets
    ]


def _factory(name: str) -> Callable[..., Target]:
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return cast("Callable[..., Target]", getattr(import_module(module), attribute))
    plugins = _plugins()
    if name not in plugins:
        raise UnknownNameError("target", name, [*BUILT_IN, *plugins])
    point = plugins[name]
    try:
        return cast("Callable[..., Target]", point.load())
    except Exception as error:  # a plugin may raise anything
        raise TargetError(
            f"Target {name!r} of distribution {_distribution(point)!r} can't be loaded "
            f"({point.value}): {type(error).__name__}: {error}"
        ) from error


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        known = found.get(point.name)
        # The same distribution can be seen twice, when two folders of sys.path hold it.
        if known is not None and (known.value, _distribution(known)) == (point.value, _distribution(point)):
            continue
        if known is not None or point.name in BUILT_IN:
            other = _distribution(known) if known is not None else "lpcvc_zoo itself"
            raise RegistryError(
                f"Two targets are called {point.name!r}: one of {other}, one of {_distribution(point)}. "
                "Uninstall or rename one."
            )
        found[point.name] = point
    return found


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown distribution)"
