"""Save what a program showed, such as figures, or show its images on a terminal that can."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from anyio import to_thread

from pyexec_client import Display, PyexecError, Result

from .console import Console
from .sixel import has_pillow, has_sixel, sixel_sequence

_CHUNK = 4096
"""Characters of base64 in one command of the kitty protocol."""


async def output_displays(
    result: Result,
    directory: str | None,
    console: Console,
    *,
    show: bool,
    show_text: bool = False,
    first: int = 1,
) -> None:
    """Write each display to a file of the directory. Without one, show images if `show` is set and the terminal can.

    `show_text`: print the plain text of displays that are neither shown nor saved in a better form, but not that of the
    last expression, whose value the caller has printed. `first` is the number of the first display."""
    if not result.displays:
        return
    of_value = _display_of_value(result)
    if directory is not None:
        await to_thread.run_sync(_save, result.displays, Path(directory), console, first)
        for display in result.displays if show_text else ():
            if display.mime_type == "text/plain" and display is not of_value:
                await console.write("stdout", display.content() + b"\n")
        return
    # `repl`, which prints texts, reads the keyboard itself, so it must not ask the terminal.
    protocol = await find_protocol(result.displays, ask=not show_text) if show else None
    shown = 0
    for display in result.displays:
        if protocol and (sequence := await to_thread.run_sync(_image, display, protocol)) is not None:
            await console.write("stdout", sequence)
            shown += 1
        elif show_text and "text/plain" in display.data:
            if display is not of_value:
                await console.write("stdout", display.content("text/plain") + b"\n")
            shown += not display.mime_type.startswith("image/")
    if left := len(result.displays) - shown:
        advice = "--output-dir DIR saves them"
        if protocol == "sixel" and not has_pillow():
            advice += "; pip install pillow shows images on this terminal"
        console.info(f"displays not shown: {left} ({advice})")


def _display_of_value(result: Result) -> Display | None:
    """Return the display of the last expression, if it has one. Figures may follow it."""
    if result.result is None:
        return None
    texts = [each for each in result.displays if each.data.get("text/plain") == result.result]
    return texts[-1] if texts else None


def _save(displays: Iterable[Display], directory: Path, console: Console, first: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for number, display in enumerate(displays, start=first):
        target = directory / f"display-{number}{display.suffix}"
        try:
            target.write_bytes(display.content())
        except ValueError as error:
            raise PyexecError(f"cannot read display {number}: {error}") from error
        console.info(f"wrote {target}")


async def find_protocol(displays: Iterable[Display], *, ask: bool) -> str | None:
    """Return the protocol with which standard output shows images. Ask the terminal if no variable names one."""
    known = declared_protocol()
    if known or not ask or not any("image/png" in each.data for each in displays):
        return known
    can_ask = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return "sixel" if can_ask and await to_thread.run_sync(has_sixel) else None


def declared_protocol() -> str | None:
    """Return the protocol that variables name for standard output; None if it is not a terminal, or none is named."""
    return protocol_from_env(os.environ) if sys.stdout is not None and sys.stdout.isatty() else None


def protocol_from_env(environment: os._Environ[str] | dict[str, str]) -> str | None:
    """Return the protocol with which the terminal shows images: `kitty`, `iterm2` or None.

    Terminals that can show images say so in a variable. Multiplexers pass the variable on, but not the images."""
    term = environment.get("TERM", "")
    if environment.get("TMUX") or term.startswith(("screen", "tmux", "dumb")):
        return None
    if environment.get("KITTY_WINDOW_ID") or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    known = (environment.get("TERM_PROGRAM"), environment.get("LC_TERMINAL"))
    return "iterm2" if known[0] in ("iTerm.app", "WezTerm") or known[1] == "iTerm2" else None


def _image(display: Display, protocol: str) -> bytes | None:
    """Return the escape sequence that shows the PNG of a display; None if it has none."""
    try:
        content = display.content("image/png")
    except (KeyError, ValueError):
        return None
    if protocol == "sixel":
        return sixel_sequence(content)
    # Encoded again, because the text of a server could contain control characters.
    text = base64.b64encode(content)
    if protocol == "iterm2":
        return b"\x1b]1337;File=inline=1;size=%d:%s\a\n" % (len(content), text)
    return b"".join(_kitty(text)) + b"\n"


def _kitty(text: bytes) -> Iterator[bytes]:
    for at in range(0, len(text), _CHUNK):
        first = b"a=T,f=100," if at == 0 else b""
        more = at + _CHUNK < len(text)
        yield b"\x1b_G%sm=%d;%s\x1b\\" % (first, more, text[at : at + _CHUNK])
