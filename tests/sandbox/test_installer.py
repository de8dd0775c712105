"""Test that the installer of setups runs in every image."""

import struct

from pyexec.sandbox.environments.setup import installed_uv

PT_INTERP, PT_DYNAMIC, DT_NEEDED = 3, 2, 1


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """Return the type, offset and size of each segment of a 64-bit ELF file (elf(5))."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = []
    for number in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        found.append((kind, start, length))
    return found


def test_uv_needs_no_shared_library() -> None:
    data = installed_uv().read_bytes()
    assert data[:5] == b"\x7fELF\x02"
    kinds = {kind for kind, _, _ in segments(data)}
    assert PT_INTERP not in kinds, "a dynamic executable needs a matching loader in every image"
    for kind, start, length in segments(data):
        if kind == PT_DYNAMIC:
            tags = [struct.unpack_from("<Q", data, at)[0] for at in range(start, start + length, 16)]
            assert DT_NEEDED not in tags
