"""Prepare the program's interpreter, and wait in it for the start signal.

The interpreter imports this file as `sitecustomize`, after its initialization and before it opens the script, because
the supervisor sets PYTHONPATH. See docs/design/prestarted-interpreter.md. This file uses only modules that every
interpreter has loaded by then, and leaves none behind."""

import os
import sys

PARAMETERS, READY, ARCHIVE, CHANNEL = 3, 4, 5, 6
"""Descriptors: pipes from and to the supervisor, the zip archive that contains this file, and a socket for reports."""
MESSAGE_MAX = 192 * 1024
LIMITS_END = 24
"""SECRET_BYTES + NUMBER_BYTES of reports/channel.py, which this file cannot import: it loads that module's code."""
CHUNK = 64 * 1024
TEXT_STREAM = type(sys.stdout)
SIGNALS = sys.modules["_signal"]
"""The module `signal` is not loaded."""


def main():
    os.close(ARCHIVE)
    os.set_inheritable(PARAMETERS, False)
    os.set_inheritable(READY, False)
    os.set_inheritable(CHANNEL, False)
    this = hide(os.path.dirname(__file__))
    buffer_lines()
    found = True
    try:
        __import__("sitecustomize")  # the image's own
    except ImportError as error:
        found = error.name != "sitecustomize"
        raise  # `site` ignores it if the image has none
    finally:
        sys.modules.setdefault("sitecustomize", this)  # Python removes it when the import of this file fails
        wait_for_start(found)
        os.environ.setdefault("PYTHONUNBUFFERED", "1")  # for Python processes that the program starts


def hide(path):
    """Remove this module from all places where the program, or a process that it starts, could find it. Return it."""
    sys.path.remove(path)
    sys.path_importer_cache.pop(path, None)
    sys.modules["zipimport"]._zip_directory_cache.pop(path, None)
    paths = os.environ.pop("PYTHONPATH")[len(path) + 1 :]
    if paths:
        os.environ["PYTHONPATH"] = paths
    return sys.modules.pop("sitecustomize")


def buffer_lines():
    """Write complete lines at once, as on a terminal, unless the image or the request sets PYTHONUNBUFFERED."""
    if "PYTHONUNBUFFERED" not in os.environ:
        sys.stdout.reconfigure(line_buffering=True)
        sys.stderr.reconfigure(line_buffering=True)
        os.register_at_fork(before=flush)
        SIGNALS.signal(SIGNALS.SIGRTMAX, flush_at_limit)


def flush():
    """Flush unfinished lines. Return False if that is impossible, because the program is writing to a stream.

    Before a fork, it keeps the child process from printing them, too."""
    complete = True
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        if type(stream) is TEXT_STREAM:  # not an object of the program, whose code could do anything
            try:
                stream.flush()
            except RuntimeError:
                complete = False
            except (OSError, ValueError):  # it is closed
                pass
    return complete


def flush_at_limit(*_):
    """Flush unfinished lines before a limit ends the program, when the supervisor sends SIGRTMAX.

    Then block the signal, which the supervisor can see. It sends the signal again until that happens."""
    if flush():
        SIGNALS.pthread_sigmask(SIGNALS.SIG_BLOCK, (SIGNALS.SIGRTMAX,))


def wait_for_start(customized):
    """Report to the supervisor, wait until it sends more arguments and variables, and apply them (see prestart.py)."""
    try:
        os.write(READY, b"1" if customized or image_has_startup_code() else b"0")
    except BrokenPipeError:
        pass  # the supervisor has sent everything before this process started
    os.close(READY)
    data = b""
    while True:
        part = os.read(PARAMETERS, CHUNK)
        if not part:
            break
        data += part
    os.close(PARAMETERS)
    count, *strings = map(os.fsdecode, data.split(b"\0"))
    arguments = strings[: int(count)]
    sys.argv += arguments
    if hasattr(sys, "orig_argv"):
        sys.orig_argv += arguments
    for pair in strings[int(count) :]:
        name, value = pair.split("=", 1)
        os.environ[name] = value
    open_channel()


def open_channel():
    """Let the program report, if the supervisor has sent the code for it (see reports/channel.py)."""
    message = os.read(CHANNEL, MESSAGE_MAX)
    if not message:
        os.close(CHANNEL)
        return
    name = "pyexec.guest.reports.channel"
    marshal = sys.modules["marshal"]
    module = sys.modules[name] = type(sys)(name)
    exec(marshal.loads(marshal.loads(message[LIMITS_END:])["channel"]), module.__dict__)
    module.start(CHANNEL, message)


def image_has_startup_code():
    """Return True if packages of the image run code in every interpreter. It may have read environment variables."""
    for directory in getattr(sys.modules["site"], "getsitepackages", list)():
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        if any(has_code(os.path.join(directory, name)) for name in names if name.endswith(".pth")):
            return True
    return False


def has_code(path):
    """Return True if a .pth file has a line that `site` executes."""
    try:
        with open(path, "rb") as file:
            return any(line.startswith((b"import ", b"import\t")) for line in file)
    except OSError:
        return False  # `site` ignores it, too


main()
