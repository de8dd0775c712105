"""Report the exception that has ended the main thread: its type, message and frames, and those that led to it.

This module imports only modules that the interpreter has already loaded: any other import could load a file of the
caller with the same name."""

import builtins
import os
import sys

from pyexec.guest.reports.channel import (
    CAUGHT,
    CAUSE,
    CONTEXT,
    EXCEPTION,
    FRAME,
    OMITTED,
    OWN_LINE,
    PACKAGE,
    channel,
    field,
    without_own_frames,
)

OWN_FILES = "/work/"
EXCEPTIONS_MAX = 5
FIRST_FRAMES, LAST_FRAMES = 10, 20
"""Frames of an exception that are reported. A deep recursion has more."""
NAME_MAX, MESSAGE_MAX, CODE_MAX = 200, 4001, 200
"""Characters of a name, of a message, and of a line of code."""
REPORT_BYTES_MAX = 48 * 1024
"""Above this, the first exceptions of a chain are left out."""
FILE_BYTES_MAX = 1024 * 1024
"""The lines of a larger file are not read."""
LINE_NUMBER_MAX = 2**31 - 1
SUGGESTING = (NameError, AttributeError, ImportError)
"""The interpreter adds a suggestion to messages of these exceptions."""

COMPILER_ERRORS = (SyntaxError, RecursionError, MemoryError)
"""The exceptions of the compiler. It raises the last two for code that is nested too deeply."""
NULL_BYTES = "cannot contain null bytes"
"""In the message of the ValueError that the compiler raises for null bytes. Since Python 3.12, it is a SyntaxError."""
GROUP = getattr(builtins, "BaseExceptionGroup", ())
"""The class of exception groups; no class before Python 3.11."""


def report(error, is_certain=False, script=None):
    """Report an exception if it has ended the main thread, which can be certain, else that none has.

    `script` is the module of the script; by default, the present `__main__`."""
    if not channel.is_open():
        return
    if not is_certain and not ended_main_thread(error, script or sys.modules.get("__main__", sys)):
        report_none()
        return
    lines = Lines()
    parts = []
    for link, each in chain_of(error):
        frames = frames_of(each)
        parts.append(encode_exception(link, each, frames, lines))
    own = [number for path, number, _ in frames if number and is_own(path)]
    while len(parts) > 1 and sum(map(len, parts)) > REPORT_BYTES_MAX:
        del parts[0]
    if own:
        parts.append(field(OWN_LINE, "", b"%d" % own[-1]))
    channel.send(EXCEPTION, b"".join(parts))


def report_none():
    """Report that no exception has ended the main thread. Without a report, the server searches stderr for one."""
    channel.send(EXCEPTION, b"")


def encode_exception(link, error, frames, lines):
    """Return the fields of one exception: its type and message, then its frames."""
    fields = [field(link, type(error).__name__[:NAME_MAX], encoded(message_of(error)[:MESSAGE_MAX]))]
    fields += [encode_frame(*frame, lines) for frame in frames[:FIRST_FRAMES]]
    omitted = len(frames) - FIRST_FRAMES - LAST_FRAMES
    if omitted > 0:
        fields.append(field(OMITTED, "", b"%d" % omitted))
    fields += [encode_frame(*frame, lines) for frame in frames[FIRST_FRAMES:][-LAST_FRAMES:]]
    return b"".join(fields)


def ended_main_thread(error, script):
    """Return True if the exception has passed through the script, if the script cannot be compiled, or if it was
    interrupted before its first line.

    An exception group without a traceback counts: `except*` raises such groups."""
    trace = error.__traceback__
    if trace is None:
        has_null_bytes = type(error) is ValueError and NULL_BYTES in str(error)
        return has_null_bytes or isinstance(error, (*COMPILER_ERRORS, KeyboardInterrupt, GROUP))
    while trace:
        if trace.tb_frame.f_globals is vars(script):
            return True
        trace = trace.tb_next
    return isinstance(error, SyntaxError)


def chain_of(error):
    """Return the exception and those that led to it, the first one first, with how each came from the one before."""
    chain, link = [], CAUGHT
    seen = set()
    while error is not None and id(error) not in seen and len(chain) < EXCEPTIONS_MAX:
        seen.add(id(error))
        before, link = error.__cause__, CAUSE
        if before is None:
            before, link = None if error.__suppress_context__ else error.__context__, CONTEXT
        is_first = before is None or id(before) in seen or len(chain) + 1 == EXCEPTIONS_MAX
        chain.insert(0, (CAUGHT if is_first else link, error))
        error = before
    return chain


def message_of(error):
    """Return the message as the interpreter prints it after the type."""
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)
        notes = [str(note) for note in getattr(error, "__notes__", ())]
    except Exception:  # code of the program
        return "<exception str() failed>"
    if isinstance(error, SUGGESTING) and sys.version_info >= (3, 12):
        text += suggestion_for(error, text)
    return "\n".join([text] + notes)


def suggestion_for(error, text):
    """Return what the interpreter, from Python 3.12 on, adds to the message.

    The module `traceback` computes it. During its import, no file of the caller can be imported."""
    path, sys.path = sys.path, [os.path.dirname(os.__file__)]
    try:
        import traceback

        kind = traceback.TracebackException
        printed = "".join(
            kind(type(error), error, error.__traceback__, lookup_lines=False).format_exception_only()
        )
    except Exception:  # the program may have replaced the module
        return ""
    finally:
        sys.path = path
    after = printed.partition(text)[2].partition("\n")[0] if text else ""
    return after if after.startswith(". Did you ") else ""


def frames_of(error):
    """Return the file, line and function of each frame, without those of this package.

    The place of a syntax error is a frame without a function."""
    trace = error.__traceback__
    if trace and trace.tb_frame.f_code.co_filename == "<string>":
        trace = without_own_frames(trace.tb_next) or trace
    frames = []
    while trace:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            frames.append((code.co_filename, line_number(trace.tb_lineno), code.co_name))
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and isinstance(error.filename, str) and isinstance(error.lineno, int):
        frames.append((error.filename, line_number(error.lineno), ""))
    return frames


def line_number(number):
    """Return the number of a line; 0 if it is none: generated code may have no line numbers, or invalid ones."""
    return number if number and 0 < number <= LINE_NUMBER_MAX else 0


def is_own(path):
    """Return True for a file of the caller."""
    if not path.startswith("/"):
        # Before Python 3.9, the script has the name of the command line.
        return not path.startswith(("<", PACKAGE))
    return path.startswith(OWN_FILES) and "/site-packages/" not in path


def encode_frame(path, number, function, lines):
    text = "%d\0%s\0%s" % (number, function[:NAME_MAX].replace("\0", ""), lines.read(path, number))
    return field(FRAME, path[-NAME_MAX:], encoded(text))


def encoded(text):
    return text.encode("utf-8", "backslashreplace")


sources: "dict[str, list[bytes]]" = {}
"""The lines of code that is in no file, by the name of the code: the cells of a session."""


class Lines:
    """Reads lines of source files."""

    def __init__(self):
        self.files = dict(sources)

    def read(self, path, number):
        """Return a line without its indentation; empty if it cannot be read."""
        if path not in self.files:
            self.files[path] = read_lines(path)
        lines = self.files[path]
        line = lines[number - 1] if 0 < number <= len(lines) else b""
        return line.strip().decode("utf-8", "replace")[:CODE_MAX].replace("\0", "")


def read_lines(path):
    if not path.endswith(".py"):
        return []
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError):
        return []
    return [] if len(data) > FILE_BYTES_MAX else data.split(b"\n")
