"""Where towers are compiled, measured and run: looked up by name, third parties' by entry point.

A plugin adds a line to its own pyproject.toml and takes the same road as the built-in targets::

    [project.entry-points."lpcvc_zoo.targets"]
    my_board = "my_package.targets:MyBoard"

This file imports nothing heavy: the measuring child process passes through it.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from lpcvc_zoo.errors import TargetError, UnknownNameError, ZooError
from lpcvc_zoo.plugins import distribution, names_in, point_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint

    from lpcvc_zoo.targets.base import Target

GROUP = "lpcvc_zoo.targets"
METHODS = ("fingerprint", "compile", "profile", "infer")
BUILT_IN = {
    "onnxruntime": "lpcvc_zoo.targets.onnxruntime:OnnxRuntimeTarget",
    "aihub": "lpcvc_zoo.targets.aihub:AIHubTarget",
    "qnn": "lpcvc_zoo.targets.qnn.target:QnnTarget",
}


def list_targets() -> list[str]:
    """Names of all targets, built-in and third-party, sorted. Loads none of them."""
    return sorted({*BUILT_IN, *names_in(GROUP)})


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
        misplaced = set(given) - options_of(name)
        others = [other for other in BUILT_IN if misplaced and set(given) <= options_of(other)]
        hint = f" Did you mean the target {' or '.join(others)}?" if others else ""
        raise TargetError(
            f"Target {name!r} can't be made with {given}: {error}. It takes: {takes}.{hint}"
        ) from None
    return _made(name, factory, given)


def options_of(name: str) -> set[str]:
    """Names of the options that a target takes."""
    return set(inspect.signature(_factory(name)).parameters)


def expand_devices(name: str, devices: Sequence[str]) -> tuple[str, ...]:
    """Devices of a target by name, groups such as "all-phones" taken apart where the target has any.

    A target with groups has a static method ``expand`` from one word to names.
    """
    expand = getattr(_factory(name), "expand", None)
    if expand is None:
        return tuple(devices)
    return tuple(dict.fromkeys(found for device in devices for found in expand(device)))


def _factory(name: str) -> Callable[..., Target]:
    point = point_named(GROUP, "target", name, BUILT_IN)
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return cast("Callable[..., Target]", getattr(import_module(module), attribute))
    if point is None:
        raise UnknownNameError("target", name, list_targets())
    try:
        factory = point.load()
        if not callable(factory):
            raise TypeError(f"expected a class or function, got {type(factory).__name__}")
        inspect.signature(factory)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise _broken(name, point, error) from error
    return cast("Callable[..., Target]", factory)


def _made(name: str, factory: Callable[..., Target], given: dict[str, Any]) -> Target:
    """A target with the methods of one; a plugin may give anything, or raise it."""
    if name in BUILT_IN:
        return factory(**given)
    point = point_named(GROUP, "target", name, BUILT_IN)
    assert point is not None  # the factory is its own
    try:
        target = factory(**given)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(name, point, error) from error
    if missing := [method for method in METHODS if not callable(getattr(target, method, None))]:
        raise _broken(name, point, TypeError(f"{type(target).__name__} has no {', '.join(missing)}"))
    return target


def _broken(name: str, point: EntryPoint, error: BaseException) -> TargetError:
    return TargetError(
        f"Target {name!r} of distribution {distribution(point)!r} can't be loaded "
        f"({point.value}): {type(error).__name__}: {error}"
    )
