"""The program's interpreter, started before there is a program: while the sandbox waits, so that nobody else does.

It is the real `python3 main.py`. For the time being main.py is a FIFO, so the interpreter gets ready, opens its script,
and waits for what to read. Then the name is taken away, and the archive unpacked as ever. The go-ahead is to write into
the FIFO what the archive has in main.py: all that the program, its traceback or its children can see is what they would
see of an interpreter started now, because it is one. It has run nothing of the caller's before.

A program that another process would be started for, or that is not read alike out of a pipe, gets that other process.

This file travels into the container as text, as supervisor.py says."""

import fcntl
import os
import re
import signal
import stat
import sys
from importlib.util import MAGIC_NUMBER

from pyexec.guest.interpreter import Streams, spawn
from pyexec.guest.memory import anonymous
from pyexec.guest.wire import WORK

SCRIPT = "main.py"
ARRIVAL_SECONDS = 5.0
"""An interpreter that has not come to its script by then is not waited for: something in its image holds it."""
F_GETPIPE_SZ = 1032
PLACES = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""Variables that say where an interpreter that starts finds code."""
USER_SITE = ".local"
"""Where in its home, which is the archive's place, too, it looks for more."""
COOKIE = re.compile(rb"coding[:=][ \t]*([-\w.]+)")
UTF_8 = re.compile(rb"utf[-_]8(?:[-_].*)?", re.IGNORECASE)


class PrestartedInterpreter:
    """An interpreter that waits for its script in /work, the present directory."""

    @classmethod
    def start(cls, memory):
        """One that waits, or None where there can be none."""
        if sys.implementation.name != "cpython" or not starts_alike(os.environ):
            return None
        try:
            os.mkfifo(SCRIPT, 0o600)
            try:
                standby = cls(memory)
            finally:
                os.unlink(SCRIPT)
        except OSError:
            return None
        if standby.has_arrived:
            return standby
        standby.end()
        return None

    def __init__(self, memory):
        self.source = b""
        self.has_gone = False
        self.streams = Streams()
        self.pid = spawn([SCRIPT], [], self.streams, memory)
        self.streams.hand_over()
        self.script, self.has_arrived = open_when_read(SCRIPT)

    @property
    def held(self):
        """Bytes of memory that count as the program's, as they would have after its start."""
        return anonymous(self.pid)

    def takes(self, plan):
        """Whether it is what would be started for this program, and reads its script alike."""
        if plan["entrypoint"] != SCRIPT or plan["args"] or plan["env"] or plan["evaluator"]:
            return False
        if os.path.lexists(USER_SITE) or self.is_gone():
            return False
        try:
            self.source = contents(SCRIPT, fcntl.fcntl(self.script, F_GETPIPE_SZ))
        except OSError:
            return False
        return self.source is not None and reads_alike(self.source)

    def is_gone(self):
        """Whether it has ended: when memory runs out, the kernel takes it first."""
        if not self.has_gone:
            self.has_gone = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self.has_gone

    def begin(self):
        """Gives it its script: its process id, and no status yet. It all fits into the pipe, so nothing is waited
        for; if it has just been killed, that is how the program ends."""
        os.set_blocking(self.script, False)
        try:
            os.write(self.script, self.source)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.script)
        self.streams.close_input()
        return self.pid, None

    def end(self):
        """Nothing of it is left."""
        if not self.is_gone():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.script)
        self.streams.close()


def open_when_read(path):
    """A FIFO opened for writing, once somebody opens it for reading, and whether it was so: a child that ends, or
    time that is up, ends the wait, too."""
    unblocking = []

    def unblock(*_):
        unblocking.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    for number in (signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, unblock)
    signal.setitimer(signal.ITIMER_REAL, ARRIVAL_SECONDS)
    try:
        fifo = os.open(path, os.O_WRONLY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, lambda *_: None)
    for fd in unblocking:
        os.close(fd)
    return fifo, not unblocking


def starts_alike(variables):
    """Whether no such variable leads an interpreter into the archive when it starts, as one does that is relative."""
    return all(
        os.path.isabs(place) and not (os.path.realpath(place) + "/").startswith(WORK + "/")
        for name in PLACES
        if variables.get(name)
        for place in re.split("[:; ]" if name.startswith("LD_") else ":", variables[name])
    )


def contents(path, size_max):
    """What is in a regular file; None for another, or a larger one."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > size_max:
            return None
        return os.read(fd, size_max)
    finally:
        os.close(fd)


def reads_alike(source):
    """Whether an interpreter reads this script out of a pipe as out of a file. There it looks for compiled code at the
    beginning, and at the end for a zip archive, which has NULs; and for another encoding than UTF-8 it goes back."""
    if b"\0" in source or source[:2] == MAGIC_NUMBER[:2]:
        return False
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    cookies = (COOKIE.search(line) for line in source.splitlines()[:2])
    return all(cookie is None or UTF_8.fullmatch(cookie[1]) for cookie in cookies)
