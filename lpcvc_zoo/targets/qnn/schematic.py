"""Reads the compiler's schematic: what every operation of the compiled graph reads and writes.

The format is undocumented plain text, so everything is checked, and what does not look as expected is a
SchematicError. What is read of it::

    graph_before_optimization = { ... 0x11: { 'operation':'q::QNN_Gather', ... },    the graph as it came
    bandwidth_information = [ {"opid" : 0x5bdb00000011 , "dram_read": 2048 , ... "is_dma": 1}, ... ]
    qnn_name_translations = { 0x11: 'node_select_1', ... }                           names of ONNX nodes
    '#1': opdesc( 0x5bdb00000011, "q::*InputSlice", ...                              compiled operations

The lower 32 bits of an ``opid`` say which operation of the graph before optimization it was made for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from lpcvc_zoo.targets.base import LayerTraffic, Traffic

_SECTION = re.compile(r"(\w+) = [\[{]")
_FIELD = re.compile(r'\s*"(\w+)"\s*:\s*(0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18})\s*')  # and nothing beside it
_FIELDS_OF = re.compile(r"\s*\{([^{}]*)\},?\s*")
_NODE = re.compile(r"\s*(0x[0-9a-f]+): \{")
_OPERATION = re.compile(r"\s*'operation':'(?:q::)?(?:QNN_)?([^']+)'")
_NAME = re.compile(r"\s*(0x[0-9a-f]+): '(.*)',?\s*$")
_COMPILED = re.compile(r'opdesc\(\s*(0x[0-9a-f]+), "([^"]+)"')
_FIELDS = {"opid", "dram_read", "dram_write", "vtcm_read", "vtcm_write", "is_dma"}
_MOVED = ("dram_read", "dram_write", "vtcm_read", "vtcm_write")
_LOW = 0xFFFFFFFF


class SchematicError(ValueError):
    """A schematic in another form than the one known here."""


def read_traffic(lines: Iterable[str]) -> Traffic:
    """The traffic of one inference, in all and by layer; SchematicError for an unknown format."""
    section, node = "", None
    types: dict[int, str] = {}
    names: dict[int, str] = {}
    compiled: dict[int, str] = {}
    operations: list[dict[str, int]] = []
    whole = False
    for line in lines:
        if found := _SECTION.match(line):
            section = found[1]
        elif section == "graph_before_optimization":
            if found := _NODE.match(line):
                node = int(found[1], 16)
            elif node is not None and (found := _OPERATION.match(line)):
                types[node] = found[1]
        elif section == "bandwidth_information":
            if line.strip() == "]":
                section, whole = "", True
            elif line.strip():
                operations.append(_operation(line))
        elif section == "qnn_name_translations" and (found := _NAME.match(line)):
            names[int(found[1], 16)] = found[2]
        elif found := _COMPILED.search(line):
            compiled[int(found[1], 16)] = found[2]
    if not operations or not whole:
        raise SchematicError("its bandwidth_information is missing or cut off")
    return _summed(operations, types, names, compiled)


def _operation(line: str) -> dict[str, int]:
    """A line's fields; all of it must be understood, for a unit or an exponent makes another number."""
    body = _FIELDS_OF.fullmatch(line)
    found = [_FIELD.fullmatch(part) for part in body[1].split(",")] if body else []
    fields = {field[1]: int(field[2], 0) for field in found if field}
    if len(found) != len(_FIELDS) or set(fields) != _FIELDS or fields["is_dma"] > 1:
        raise SchematicError(f"expected the integers {sorted(_FIELDS)}, got {line.strip()[:120]!r}")
    return fields


def _summed(
    operations: list[dict[str, int]], types: dict[int, str], names: dict[int, str], compiled: dict[int, str]
) -> Traffic:
    layers: dict[tuple[str | None, str | None], list[dict[str, int]]] = defaultdict(list)
    for operation in operations:
        made_for = operation["opid"] & _LOW
        layers[names.get(made_for), types.get(made_for)].append(operation)
    spilled = [one["dram_write"] for one in operations if compiled.get(one["opid"]) == "@Spill"]
    return Traffic(
        **_totals(operations),
        spill_bytes=sum(spilled) if compiled else None,
        layers=tuple(
            LayerTraffic(name=name, type=kind, **_totals(layer)) for (name, kind), layer in layers.items()
        ),
    )


def _totals(operations: list[dict[str, int]]) -> dict[str, int]:
    moved = {f"{field}_bytes": sum(one[field] for one in operations) for field in _MOVED}
    return moved | {"ops": len(operations), "dma_ops": sum(one["is_dma"] for one in operations)}
