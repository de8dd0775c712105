"""Show images on a terminal with sixel graphics: ask the terminal whether it has them, and encode a PNG."""

from __future__ import annotations

import io
import os
import re
import select
import sys
import time
from collections.abc import Iterator

ANSWER_SECONDS = 0.5
"""A terminal that has not answered after this time shows no images."""
ANSWER_BYTES_MAX = 4096
"""Bytes of the terminal that are searched for its answer."""
PIXELS_MAX = 2_000_000
SIDE_MAX = 8192
"""Images that are larger or longer do not fit on most screens, and take many seconds to encode."""
_COLORS = 256
_ATTRIBUTES_QUERY = b"\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL = b"4"
_RUN = re.compile(rb"(.)\1{3,}", re.DOTALL)


def has_sixel() -> bool:
    """Ask the terminal for its attributes, and return True if sixel graphics are among them.

    Return False if standard output is not the controlling terminal, if this process is in the background, or if the
    user has typed ahead: the input belongs to the next program."""
    if sys.platform == "win32":
        return False
    import termios  # Windows does not have it

    try:
        if os.tcgetpgrp(sys.stdout.fileno()) != os.getpgrp():
            return False
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except (OSError, ValueError):
        return False
    try:
        return _SIXEL in _attributes(terminal)
    except (OSError, termios.error):  # the terminal is gone
        return False
    finally:
        os.close(terminal)


def _attributes(terminal: int) -> list[bytes]:
    import termios
    import tty

    saved = termios.tcgetattr(terminal)
    deadline = time.monotonic() + ANSWER_SECONDS
    answer = b""
    try:
        tty.setcbreak(terminal, termios.TCSANOW)
        if _is_readable(terminal, 0):
            return []
        os.write(terminal, _ATTRIBUTES_QUERY)
        while (found := _ATTRIBUTES.search(answer)) is None:
            left = deadline - time.monotonic()
            piece = os.read(terminal, 256) if left > 0 and _is_readable(terminal, left) else b""
            answer += piece
            if not piece or len(answer) > ANSWER_BYTES_MAX:
                return []
        return found[1].split(b";")
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, saved)


def _is_readable(terminal: int, seconds: float) -> bool:
    readable, _, _ = select.select([terminal], [], [], seconds)
    return bool(readable)


def has_pillow() -> bool:
    """Return True if the images can be encoded."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return False
    return True


def sixel_sequence(png: bytes) -> bytes | None:
    """Return a PNG as a sixel sequence; None if it is malformed or too large, or if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            width, height = image.size
            if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
                return None
            colored = image.convert("RGBA")
    except Exception:  # noqa: BLE001 - Pillow raises many kinds for malformed images, also IndexError
        return None
    opaque = Image.alpha_composite(Image.new("RGBA", colored.size, "white"), colored).convert("RGB")
    indexed = opaque.quantize(_COLORS)
    palette = indexed.getpalette() or []
    colors = (palette[at : at + 3] for at in range(0, len(palette), 3))
    head = b"".join(
        b"#%d;2;%d;%d;%d" % (number, *(round(part / 2.55) for part in color))
        for number, color in enumerate(colors)
    )
    bands = b"".join(_bands(indexed.tobytes(), width, height))
    return b'\x1bPq"1;1;%d;%d%s%s\x1b\\\n' % (width, height, head, bands)


def _bands(pixels: bytes, width: int, height: int) -> Iterator[bytes]:
    """Yield the bands of six lines. A band has for each color a row of characters, each with six pixels as bits."""
    for top in range(0, height, 6):
        rows: dict[int, bytearray] = {}
        for bit in range(min(6, height - top)):
            line = pixels[(top + bit) * width : (top + bit + 1) * width]
            for x, color in enumerate(line):
                if color not in rows:
                    rows[color] = bytearray(b"?" * width)
                rows[color][x] += 1 << bit
        yield b"$".join(b"#%d%s" % (color, _RUN.sub(_repeat, row)) for color, row in rows.items()) + b"-"


def _repeat(run: re.Match[bytes]) -> bytes:
    return b"!%d%s" % (len(run[0]), run[1])
