"""The weights that an ONNX file keeps in other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

import onnx
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from lpcvc_zoo.exporting.lint.bodies import graphs_of

_LARGEST_PROTO = 2**31 - 1


def external_files(model: onnx.ModelProto) -> list[str]:
    """Names of the files that hold a model's weights, as seen from its own folder, each spelt one way."""
    return sorted({str(PurePath(place.value)) for tensor in _outside(model) for place in _places(tensor)})


def read_weights(model: onnx.ModelProto, folder: Path, files: list[str]) -> list[str]:
    """Read what lies in other files, unless one is missing or all is too large for one model.

    Why some could not be read, file by file, or as no file is named: such a tensor stays outside.
    """
    paths = [folder / name for name in files]
    nowhere = [tensor.name or "a Constant" for tensor in _outside(model) if not _places(tensor)]
    unread = {name: f"{name} is said to lie in another file, but not in which" for name in nowhere}
    if not all(path.is_file() for path in paths):
        return list(unread.values())
    if sum(path.stat().st_size for path in paths) >= _LARGEST_PROTO:
        return list(unread.values())
    for tensor in list(_outside(model)):
        for place in _places(tensor):
            file = (folder / place.value).resolve()  # onnx follows no link, and some caches hold only links
            named, place.value = place.value, file.name
            try:
                load_external_data_for_tensor(tensor, str(file.parent))
            except Exception as error:  # too short, or not readable: onnx raises many kinds
                place.value = named
                unread.setdefault(named, str(error))
    return list(unread.values())


def _outside(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in graphs_of(model.graph):
        held = [item.t for node in graph.node for item in node.attribute if item.HasField("t")]
        yield from (tensor for tensor in (*graph.initializer, *held) if uses_external_data(tensor))


def _places(tensor: onnx.TensorProto) -> list[onnx.StringStringEntryProto]:
    return [entry for entry in tensor.external_data if entry.key == "location" and entry.value]
