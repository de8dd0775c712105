"""The first process of every sandbox: takes one program from its standard input, runs it, and reports its output.

wire.py describes the protocol, bootstrap.py how this code gets into the container. The modules of the supervisor use
only each other and the standard library of Python 3.8 or later, on Linux.

After the start signal, a possibly hostile program shares the container. The program can neither trace the supervisor,
nor open its files, nor slow it down (seccomp.py). The supervisor ignores signals, and the kernel kills it last when
memory runs out. It kills all processes that the program leaves. The server enforces every limit again from outside."""

import ctypes
import io
import os
import signal
import sys
import time

from pyexec.guest.archive import BadArchive, unpack
from pyexec.guest.home import create_user_site, link_setup_home
from pyexec.guest.interpreter import IGNORED_SIGNALS
from pyexec.guest.memory import Memory
from pyexec.guest.prestart import prepare_interpreter, prestart_interpreter
from pyexec.guest.program import Program, kill_all
from pyexec.guest.seccomp import install_filter
from pyexec.guest.wire import (
    CHUNK,
    LINGER_SECONDS,
    PLAN,
    READY,
    REJECTED,
    START,
    START_DEADLINE_SECONDS,
    STDIN,
    UNPACKED,
    WORK,
    read_frame,
    read_json,
    send,
    send_json,
)

GRACE_SECONDS = 5.0
"""The container ends this long after the program's deadline in any case."""
PR_SET_DUMPABLE = 4


def set_dumpable(value):
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def end_container_after(seconds):
    """End the container after this time in any case. A SIGALRM that the program sends earlier has no effect."""
    limit = time.monotonic() + seconds

    def ring(*_):
        if time.monotonic() >= limit:
            kill_all()
            os._exit(1)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)


def prepare_program(interpreter, stdin, memory):
    """Return the program, ready to start in this interpreter."""
    interpreter.streams.stdin.fill(stdin)
    return Program(interpreter, memory)


def load_collector(texts):
    """Load the collector's modules, as bootstrap.py loads those of the supervisor, and return its function."""
    for name, text in texts:
        module = sys.modules[name] = type(sys)(name)
        exec(compile(text, name, "exec"), module.__dict__)
    return module.collect


def main(prestart, startup, filters):
    """Run one program, from READY to the end of the container. With `prestart`, start its interpreter in advance.

    `startup` is the archive that contains startup.py, and `filters` are those of seccomp.py."""
    memory = Memory()
    archive = os.memfd_create("startup")
    os.write(archive, startup)
    set_dumpable(0)
    install_filter(filters)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(WORK)
    frames = io.open(0, "rb", buffering=4 * CHUNK, closefd=False)
    send_json(READY, python=sys.version.split()[0], memory_bytes=memory.charged())
    create_user_site()
    prestarted = prestart_interpreter(memory, archive) if prestart else None
    try:
        unpack(frames, WORK)
    except BadArchive as error:
        code = "disk_full" if error.disk_full else "bad_archive"
        return send_json(REJECTED, code=code, message=str(error)[:1000])
    link_setup_home()
    create_user_site()
    send(UNPACKED)
    plan, stdin = read_json(frames, PLAN), read_frame(frames, STDIN)
    program = prepare_program(prepare_interpreter(plan, prestarted, memory, archive), stdin, memory)
    prepared = time.monotonic()
    start = read_json(frames, START)
    if time.monotonic() - prepared > START_DEADLINE_SECONDS:
        return send_json(REJECTED, code="late", message="the start signal came too late")
    if program.interpreter.has_exited():
        program.interpreter.discard()
        program = prepare_program(prepare_interpreter(plan, None, memory, archive), stdin, memory)
    end_container_after(start["timeout"] + GRACE_SECONDS)
    program.run(start)
    end_container_after(LINGER_SECONDS)
    if start["collector"]:
        load_collector(start["collector"])(start["files"], send)
    while True:
        signal.pause()
