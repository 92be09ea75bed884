"""Files inside a compiled Qt resource (.rcc), as Qt's documentation of the rcc tool describes it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_COMPRESSED, _FOLDER, _ZSTANDARD = 1, 2, 4


def files_of(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and content of each file. ValueError for what is no resource, or is packed with Zstandard."""
    magic, version, tree, contents, names = struct.unpack_from(">4siiii", data)
    if magic != b"qres":
        raise ValueError("This is no compiled Qt resource: it does not begin with 'qres'.")
    row = 22 if version >= 2 else 14

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        at = tree + index * row
        name, flags = struct.unpack_from(">IH", data, at)
        path = folder
        if index:  # the root has no name
            (length,) = struct.unpack_from(">H", data, names + name)
            start = names + name + 6
            path = f"{folder}/{data[start : start + 2 * length].decode('utf-16-be')}"
        if flags & _FOLDER:
            count, first = struct.unpack_from(">II", data, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        if flags & _ZSTANDARD:
            raise ValueError(f"{path} is packed with Zstandard.")
        (offset,) = struct.unpack_from(">I", data, at + 10)
        (size,) = struct.unpack_from(">I", data, contents + offset)
        start = contents + offset + 4
        content = data[start : start + size]
        yield path, zlib.decompress(content[4:]) if flags & _COMPRESSED else content

    yield from walk(0, "")
