"""Run the cells of a session with IPython's shell, in the program's own process. See docs/design/sessions.md.

Code of the caller has full access to all of this. It can break its own session, until the supervisor restarts the
interpreter."""

import builtins
import contextlib
import functools
import json
import os
import signal
import sys
import warnings

from pyexec.guest.reports.channel import DISPLAYS_MAX, channel, load

HELLO, VARIABLES, CELL, CODE = b"H", b"V", b"C", b"D"
"""Messages of the supervisor (see session_interpreter.py)."""
MESSAGE_MAX = 64 * 1024
BUILTINS = vars(builtins)
STANDARD_BUILTINS = dict(BUILTINS)
FIRST_SAVED_DESCRIPTOR = 200


class Streams:
    """The standard streams as they are when a cell begins, whatever the cells before have done with them."""

    def __init__(self):
        import fcntl

        self.saved = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_SAVED_DESCRIPTOR) for fd in (0, 1, 2)}
        self.files = {0: sys.stdin, 1: sys.stdout, 2: sys.stderr}

    def restore(self):
        self.restore_descriptors()
        for fd in self.saved:
            if self.files[fd].closed:
                mode, errors = "w" if fd else "r", "backslashreplace" if fd == 2 else "surrogateescape"
                self.files[fd] = open(fd, mode, 1, "utf-8", errors, closefd=False)
        sys.stdin, sys.stdout, sys.stderr = self.files.values()
        vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)

    def restore_descriptors(self):
        for fd, saved in self.saved.items():
            os.set_blocking(saved, True)  # an event loop makes the pipe non-blocking, and leaves it so
            if not same_file(fd, saved):
                os.dup2(saved, fd)

    def flush(self):
        """Write what the cell has printed, even if it has closed a descriptor: the next cell must not get it."""
        with contextlib.suppress(OSError):  # it has closed the saved one, too
            self.restore_descriptors()
        for file in (*self.files.values(), sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the program may have closed or replaced it
                file.flush()


def same_file(one, two):
    try:
        return os.path.samestat(os.fstat(one), os.fstat(two))
    except OSError:
        return False


def restore_builtins():
    """Restore missing built-ins. This function itself uses none."""
    for name in STANDARD_BUILTINS:
        BUILTINS.setdefault(name, STANDARD_BUILTINS[name])


def refuse_input(prompt=""):
    raise EOFError("input() is not available in a session: a cell has no standard input")


def ignore_interrupt(*_):
    """Ignore an interrupt that comes when no cell runs."""


def main():
    """Serve cells until the supervisor ends the process."""
    channel.displays_left = 0
    secret = receive(HELLO)
    # Variables of the session such as PYTHONWARNINGS=error are for its cells, not for the import of IPython.
    with warnings.catch_warnings() if sys.warnoptions else contextlib.nullcontext():
        if sys.warnoptions:
            warnings.simplefilter("ignore")
        with_own_imports(load_shell)
        streams = Streams()
        shell = load("session_ipython").create_shell()
    load("session_ipython").ignore_hints()
    BUILTINS["input"] = STANDARD_BUILTINS["input"] = refuse_input
    signal.signal(signal.SIGINT, ignore_interrupt)
    say(secret, ready=True)
    while True:
        with contextlib.suppress(BaseException):  # an interrupt after a cell, or a cell has broken this code
            serve(shell, streams, secret)


def with_own_imports(function):
    """Call the function while files of the caller in /work cannot be imported."""
    paths, sys.path = sys.path, [path for path in sys.path if path]
    try:
        function()
    finally:
        sys.path = paths


def load_shell():
    load("evaluator", "bundles", "display", "exceptions", "session_ipython")


def serve(shell, streams, secret):
    """Handle the next message of the supervisor."""
    message = read()
    if message[:1] == VARIABLES:
        os.environ.update(pair.split("=", 1) for pair in json.loads(message[1:]))
    elif message[:1] == CELL:
        header = json.loads(message[1:])
        code = b""
        while len(code) < header["size"]:
            code += receive(CODE)
        run_cell(shell, streams, secret, header, code.decode("utf-8-sig", "surrogatepass"))


def run_cell(shell, streams, secret, header, code):
    """Run a cell, and report its exit code to the supervisor."""
    pid = os.getpid()
    exit_code = 1
    try:
        streams.restore()
        channel.bytes_left, channel.displays_left = header["display_bytes"], DISPLAYS_MAX
        channel.has_dropped = False
        begin = functools.partial(say, secret, begun=header["nonce"])
        exit_code = shell.run_interruptible(code, restore_builtins, begin)
    finally:
        restore_builtins()
        signal.signal(signal.SIGINT, ignore_interrupt)
        streams.flush()
        if os.getpid() != pid or shell.is_leaving:
            os._exit(exit_code)  # a forked process has come to the end of the cell, or exit() was called
        say(secret, ended=header["nonce"], exit_code=exit_code)


def receive(kind):
    """Return the content of the next message, which must be of this kind."""
    message = read()
    if message[:1] != kind:
        os._exit(1)
    return message[1:]


def read():
    """Return the next message. End the process if the supervisor, or the descriptor, is gone."""
    if not channel.is_open():
        os._exit(1)
    message = os.read(channel.fd, MESSAGE_MAX)
    if not message:
        os._exit(1)
    return message


def say(secret, **document):
    """Send a document to the supervisor."""
    if channel.is_open():
        os.write(channel.fd, secret + json.dumps(document).encode())
