"""Programs and shared objects made as small as the loader needs them."""

from __future__ import annotations

import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian: x86-64 and ARM64
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def strip(path: Path) -> None:
    """Cuts off what follows the last segment: symbols for debuggers, and the table of sections.

    A loader maps segments, and reads nothing else. A file that is no such object is left alone."""
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        return
    header = list(_HEADER.unpack_from(content))
    table, size, count = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(content, table + n * size) for n in range(count)]
    end = max(table + count * size, *(offset + length for _, _, offset, _, _, length, _, _ in segments))
    header[6] = header[11] = header[12] = header[13] = 0  # there are no sections any more
    path.write_bytes(_HEADER.pack(*header) + content[_HEADER.size : end])
