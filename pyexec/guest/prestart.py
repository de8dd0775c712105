"""Start the program's interpreter in advance, while the sandbox is idle. See docs/design/prestarted-interpreter.md.

The interpreter runs the real `python3 main.py`. At that time main.py is a FIFO, so the interpreter initializes, opens
its script and waits for data. The supervisor then deletes the name, and unpacks the archive as usual. At the start
signal it writes the archive's main.py into the FIFO. Until then, no code of the caller has run.

If a program does not fit, a new interpreter runs it instead.

Part of the supervisor (see bootstrap.py)."""

import fcntl
import os
import re
import signal
import sys
from importlib.util import MAGIC_NUMBER

from pyexec.guest.home import read_regular_file
from pyexec.guest.interpreter import Streams, spawn
from pyexec.guest.memory import private_bytes
from pyexec.guest.wire import WORK

SCRIPT = "main.py"
STARTUP_SECONDS = 5.0
"""An interpreter that has not opened its script by then is discarded; something in its image delays it."""
F_GETPIPE_SZ = 1032
PATH_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""Variables with paths from which an interpreter loads code at its start."""
USER_SITE = ".local"
"""Python also looks here for code at its start, below its home directory, which is /work."""
ENCODING = re.compile(rb"coding[:=][ \t]*([-\w.]+)")
UTF_8 = re.compile(rb"utf[-_]8(?:[-_].*)?", re.IGNORECASE)


class PrestartedInterpreter:
    """An interpreter that waits for its script in /work, which must be the current directory."""

    @classmethod
    def start(cls, memory):
        """Return an interpreter that waits for its script, or None if that is not possible in this image."""
        if sys.implementation.name != "cpython" or not loads_only_from_image(os.environ):
            return None
        try:
            os.mkfifo(SCRIPT, 0o600)
            try:
                interpreter = cls(memory)
            finally:
                os.unlink(SCRIPT)
        except OSError:
            return None
        if interpreter.is_ready:
            return interpreter
        interpreter.discard()
        return None

    def __init__(self, memory):
        self.source = b""
        self.exited = False
        self.streams = Streams()
        self.pid = spawn([SCRIPT], [], self.streams, memory)
        self.streams.close_program_ends()
        self.script, self.is_ready = open_for_reader(SCRIPT)

    @property
    def memory_bytes(self):
        """Return the interpreter's own memory. It counts as the program's, as if both had started together."""
        return private_bytes(self.pid)

    def fits(self, plan):
        """Return True if this interpreter would run the program exactly as a new one would; read the script then."""
        if plan["entrypoint"] != SCRIPT or plan["args"] or plan["env"] or plan["evaluator"]:
            return False
        if os.path.lexists(USER_SITE) or self.has_exited():
            return False
        try:
            self.source = read_regular_file(SCRIPT, fcntl.fcntl(self.script, F_GETPIPE_SZ))
        except OSError:
            return False
        return self.source is not None and fits_pipe(self.source)

    def has_exited(self):
        """Return True if the process is gone. When memory runs out, the kernel kills it first."""
        if not self.exited:
            self.exited = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self.exited

    def start_program(self):
        """Write the script to the interpreter. Return its process id, and None for the wait status.

        The script fits into the pipe, so this does not block. If the interpreter has just died, the run ends."""
        os.set_blocking(self.script, False)
        try:
            os.write(self.script, self.source)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.script)
        self.streams.close_stdin()
        return self.pid, None

    def discard(self):
        """Kill the interpreter and close its streams."""
        if not self.has_exited():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.script)
        self.streams.close()


def open_for_reader(path):
    """Open a FIFO for writing. Return the descriptor, and True if another process has opened it for reading.

    This blocks until there is a reader. When a child process ends or the time is up, a signal handler opens the FIFO
    for reading itself, which ends the wait."""
    unblocking = []

    def unblock(*_):
        unblocking.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, unblock)
    signal.setitimer(signal.ITIMER_REAL, STARTUP_SECONDS)
    try:
        fifo = os.open(path, os.O_WRONLY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, lambda *_: None)
    for fd in unblocking:
        os.close(fd)
    return fifo, not unblocking


def loads_only_from_image(variables):
    """Return False if a variable lets an interpreter load code from /work at its start.

    A relative path does that, too, because /work is the current directory."""
    return all(
        os.path.isabs(path) and not (os.path.realpath(path) + "/").startswith(WORK + "/")
        for name in PATH_VARIABLES
        if variables.get(name)
        for path in re.split("[:; ]" if name.startswith("LD_") else ":", variables[name])
    )


def fits_pipe(source):
    """Return True if Python reads this script from a pipe as it does from a file.

    In a file, Python looks for compiled code at the beginning, and for a zip archive (which contains NUL bytes) at the
    end. For an encoding other than UTF-8 it seeks back to the beginning. A pipe cannot seek."""
    if b"\0" in source or source[:2] == MAGIC_NUMBER[:2]:
        return False
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    encodings = (ENCODING.search(line) for line in source.splitlines()[:2])
    return all(encoding is None or UTF_8.fullmatch(encoding[1]) for encoding in encodings)
