"""TorchScript archives (OpenAI's ``ViT-B-32.pt`` is one) read for their tensors; their code is never loaded.

An archive is a zip of stored records: ``NAME/data.pkl`` describes the module tree, ``NAME/data/0`` and so on
are the raw storages, ``NAME/code/`` is left alone. Python's unpickler calls what a pickle names, so it is not
used: ``_tree`` walks the opcodes with ``pickletools``, which only parses, and knows those that torch writes.
A script object becomes a bag of attributes; of all functions named, only those that build tensors and lists
mean anything, and none is ever looked up by its name.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lpcvc_zoo.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage

DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
VALUES = frozenset("BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE BINSTRING SHORT_BINSTRING".split())
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Real module trees are far below both; a cyclic or self-doubling tree would never end.
MAX_DEPTH, MAX_ATTRIBUTES = 100, 1_000_000


class _Global(NamedTuple):
    """The name of a class or function; nothing is imported for it."""

    path: str


class _Stored(NamedTuple):
    """A storage: the record that holds its bytes, and their type."""

    key: str
    dtype: str


class _View(NamedTuple):
    """A tensor: a view of a storage, in elements."""

    storage: _Stored
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Bag:
    """An instance of a script class: its attributes, and nothing of its class."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


_MARK = object()


def read_archive(path: Path) -> dict[str, Tensor]:
    """All tensors of the module tree (parameters, buffers and tensor attributes) by dotted name, dtypes kept.

    The tensors are private, copy-on-write maps of the file. WeightsError if anything in the archive is not
    what torch writes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(
                name for name in archive.namelist() if name.split("/")[1:] == ["constants.pkl"]
            ).split("/")[0]
            tree = _tree(archive.read(_record(archive, f"{root}/data.pkl")))
            views = {name: value for name, value in _named(tree) if isinstance(value, _View)}
            return _tensors(path, archive, root, views)
    except WeightsError as error:
        raise WeightsError(f"{path} is a TorchScript archive that can't be read: {error}") from None
    except Exception as error:  # in a stranger's file anything can be missing or of the wrong type
        raise WeightsError(
            f"{path} is a broken TorchScript archive ({type(error).__name__}: {error}). Download it again."
        ) from error


def _tree(pickled: bytes) -> Any:
    """What the pickle describes, made of numbers, strings, lists, dicts, tuples, bags and views only."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def marked() -> list[Any]:
        start = len(stack) - 1
        while stack[start] is not _MARK:
            start -= 1
        items = stack[start + 1 :]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case name if name in VALUES:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(marked()))
            case name if name in TUPLES:
                stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
            case "APPEND":
                item = stack.pop()
                list.append(stack[-1], item)
            case "APPENDS":
                items = marked()
                list.extend(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                dict.__setitem__(stack[-1], key, value)
            case "SETITEMS":
                items = marked()
                dict.update(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(str(argument).replace(" ", ".")))
            case "BINPERSID":
                stack.append(_stored(stack.pop()))
            case "NEWOBJ" | "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_made(function, arguments))
            case "BUILD":
                state, instance = stack.pop(), stack[-1]
                if not isinstance(instance, _Bag):
                    raise WeightsError(
                        f"it sets the state of {_called(instance)}, which is no script object."
                    )
                if isinstance(state, dict):  # else: packed state of a C++ class, which holds no parameter
                    instance.attributes = state
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case name:
                raise WeightsError(f"its pickle has the opcode {name}, which torch does not write there.")
    raise WeightsError("its pickle has no end.")


def _made(function: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(function, _Global):
        raise WeightsError(f"its pickle calls {_called(function)}.")
    path = function.path
    if path.startswith("__torch__."):
        return _Bag()
    if path.startswith(
        "torch.jit._pickle."
    ):  # build_intlist(items) and its like, restore_type_tag(value, type)
        return arguments[0]
    if path in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _View(*arguments[:4])
    if path == "collections.OrderedDict" and not arguments:
        return {}
    if path == "torch.device":
        return arguments
    raise WeightsError(
        f"its pickle asks to call {path}. Nothing is called for a checkpoint; "
        "if you trust its maker, ask for the weights as .safetensors."
    )


def _stored(reference: Any) -> _Stored:
    kind, storage_type, key, _device, _count = reference
    name = storage_type.path.rpartition(".")[2]
    if kind != "storage" or name not in DTYPES:
        raise WeightsError(f"it refers to a {kind} of {storage_type.path}, which is no known tensor storage.")
    return _Stored(key, DTYPES[name])


def _called(thing: object) -> str:
    return thing.path if isinstance(thing, _Global) else type(thing).__name__


def _named(root: Any) -> Iterator[tuple[str, Any]]:
    """Every attribute below the root that is not an object itself, by dotted name."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    for _ in range(MAX_ATTRIBUTES):
        if not waiting:
            return
        names, value = waiting.pop()
        if not isinstance(value, _Bag):
            yield ".".join(names), value
        elif len(names) == MAX_DEPTH:
            raise WeightsError(f"its modules are nested more than {MAX_DEPTH} deep.")
        else:
            children = [((*names, str(key)), child) for key, child in value.attributes.items()]
            waiting.extend(reversed(children))
    raise WeightsError(f"it has more than {MAX_ATTRIBUTES:,} attributes.")


def _tensors(path: Path, archive: zipfile.ZipFile, root: str, views: dict[str, _View]) -> dict[str, Tensor]:
    import torch

    size = path.stat().st_size
    mapped = torch.UntypedStorage.from_file(str(path), False, size)
    storages: dict[_Stored, Tensor] = {}
    tensors = {}
    for name, view in views.items():
        stored = view.storage
        if stored not in storages:
            start, end = _span(path, _record(archive, f"{root}/data/{stored.key}"))
            if end > size:
                raise WeightsError(f"the bytes of {name} end after the file does.")
            storages[stored] = _flat(mapped[start:end], stored.dtype)
        if min((view.offset, *view.size, *view.stride)) < 0:
            raise WeightsError(f"{name} has a negative offset, size or stride.")
        # as_strided refuses what lies outside of the storage
        tensors[name] = storages[stored].as_strided(view.size, view.stride, view.offset)
    return tensors


def _flat(storage: UntypedStorage, dtype: str) -> Tensor:
    import torch

    return torch.empty(0, dtype=getattr(torch, dtype)).set_(storage)


def _record(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise WeightsError(f"its record {name} is missing.") from None
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(
            f"its record {name} is compressed, which torch never does; give the original file."
        )
    return info


def _span(path: Path, info: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte of a stored record and the one after its last, from the start of the file."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    start = info.header_offset + 30 + name_bytes + extra_bytes
    return start, start + info.file_size
