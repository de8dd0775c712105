"""Read lines that are typed on a terminal, with an editor and a history. A signal ends the wait for a key."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from .interrupts import END_SIGNALS, not_ignored

_HISTORY_LINES = 1000
_REPEAT_SECONDS = 0.1


class EndedAtPrompt(Exception):
    """A signal that ends the program arrived while a line was typed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def read_line(prompt: str) -> str:
    """Read a line. Raise EOFError at the end of the input, KeyboardInterrupt for Ctrl-C, and EndedAtPrompt.

    Call it in the main thread: signal handlers run only there."""
    done = threading.Event()

    def handle(number: int, _frame: object) -> None:
        if done.is_set():
            return  # the first signal ends the wait; this is its repetition
        done.set()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise EndedAtPrompt(number)

    received, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    arguments = (received, threading.get_ident(), done)
    threading.Thread(
        target=_repeat_signals, args=arguments, name="signals at the prompt", daemon=True
    ).start()
    numbers = {signal.SIGINT, *not_ignored(END_SIGNALS)}
    handlers = {number: signal.signal(number, handle) for number in numbers}
    previous = signal.set_wakeup_fd(wakeup)
    try:
        return input(prompt)
    finally:
        done.set()
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(wakeup)


def _repeat_signals(received: int, main_thread: int, done: threading.Event) -> None:
    """Repeat a signal until it is handled: readline misses one that arrives just before it waits for a key."""
    with open(received, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            while not done.wait(_REPEAT_SECONDS):
                signal.pthread_kill(main_thread, number[0])


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Load the history of the line editor, and save it at the end."""
    try:
        import readline
    except ImportError:  # not available on Windows
        yield
        return
    file = Path(os.environ.get("PYEXEC_HISTORY") or Path.home() / ".python_executor_history")
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            readline.write_history_file(file)
