"""The first process of every sandbox: takes one program over its standard input, runs it, frames what it prints.

This file travels into the container as text, and so do those that it imports (boot.py): they need nothing but each
other and the standard library, of Python 3.8 and later, on Linux. What goes over the wire, and when, is in wire.py.

What runs here is trusted only until GO: afterwards the program shares this container, and may be hostile. So the
supervisor cannot be traced or opened by it, nor be slowed down (seal.py), ignores its signals, dies after it when
memory runs out, and kills whatever it leaves behind. The host enforces every limit once more from outside."""

import ctypes
import errno
import io
import os
import signal
import sys
import tarfile
import time

from pyexec.guest.interpreter import IGNORED_SIGNALS, Launch
from pyexec.guest.memory import Memory
from pyexec.guest.prestart import PrestartedInterpreter
from pyexec.guest.program import Program, kill_all
from pyexec.guest.seccomp import seal
from pyexec.guest.wire import (
    ARCHIVE,
    CHUNK,
    GO,
    GO_SECONDS,
    LINGER_SECONDS,
    PLAN,
    READY,
    REFUSED,
    STDIN,
    UNPACKED,
    WORK,
    read_frame,
    read_header,
    read_json,
    send,
    send_json,
)

GRACE_SECONDS = 5.0
PR_SET_DUMPABLE = 4


class ArchiveReader:
    """The payloads of ARCHIVE frames as one file to read from."""

    def __init__(self, frames):
        self.frames = frames
        self.left = 0
        self.ended = False

    def read(self, size):
        while not self.left and not self.ended:
            kind, self.left = read_header(self.frames)
            if kind != ARCHIVE:
                raise ValueError("expected the archive, not %r" % kind)
            self.ended = not self.left
        data = self.frames.read(min(size, self.left))
        self.left -= len(data)
        if not data and not self.ended:
            sys.exit(0)
        return data


def unpack(frames):
    """Unpacks the archive into /work as it streams in."""
    reader = ArchiveReader(frames)
    with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK, copybufsize=16 * CHUNK) as tar:
        tar.extraction_filter = lambda member, path: member
        tar.extractall(WORK, numeric_owner=True)
    while reader.read(CHUNK):
        pass


def set_dumpable(value):
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def end_everything_after(seconds):
    """Ends the container then, whatever else goes on. The program may send the alarm too; that alone does nothing."""
    limit = time.monotonic() + seconds

    def ring(*_):
        if time.monotonic() >= limit:
            kill_all()
            os._exit(1)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)


def program_of(plan, stdin, standby, memory):
    """The program, ready for its go-ahead: in the interpreter that stands by, if that takes it."""
    interpreter = standby
    if standby is None or not standby.takes(plan):
        if standby is not None:
            standby.end()
        interpreter = Launch(plan, memory)
    interpreter.streams.fill(stdin)
    return Program(interpreter, memory)


def main(ahead):
    """One program, from READY to the end of the container. `ahead` says whether an interpreter stands by for it."""
    memory = Memory()
    set_dumpable(0)
    seal()
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(WORK)
    frames = io.open(0, "rb", buffering=4 * CHUNK, closefd=False)
    send_json(READY, python=sys.version.split()[0], memory_bytes=memory.charged())
    standby = PrestartedInterpreter.start(memory) if ahead else None
    try:
        unpack(frames)
    except (tarfile.TarError, OSError, EOFError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return send_json(REFUSED, code="disk_full" if full else "bad_archive", message=str(error)[:1000])
    send(UNPACKED)
    plan, stdin = read_json(frames, PLAN), read_frame(frames, STDIN)
    program = program_of(plan, stdin, standby, memory)
    armed = time.monotonic()
    go = read_json(frames, GO)
    if time.monotonic() - armed > GO_SECONDS:
        return send_json(REFUSED, code="late", message="the go-ahead came too late")
    if program.interpreter.is_gone():
        program = program_of(plan, stdin, program.interpreter, memory)
    end_everything_after(go["timeout"] + GRACE_SECONDS)
    program.run(go)
    end_everything_after(LINGER_SECONDS)
    if go["collector"]:
        parts = {}
        exec(go["collector"], parts)
        parts["collect"](go["files"], send)
    while True:
        signal.pause()
