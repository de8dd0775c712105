"""The first process of every sandbox: takes programs from its standard input, one after another, and runs them.

wire.py describes the protocol, bootstrap.py how this code gets into the container. The modules of the supervisor use
only each other and the standard library of Python 3.8 or later, on Linux.

After the start signal, a possibly hostile program shares the container. The program can neither trace the supervisor,
nor open its files, nor slow it down (seccomp.py). The supervisor ignores signals, and the kernel kills it last when
memory runs out. It kills all processes that the program leaves. It takes another program only if it can restore
the sandbox to its initial state (cleanup.py). The server enforces every limit again from outside."""

import ctypes
import fcntl
import io
import marshal
import os
import signal
import sys
import time
import zipfile
from importlib.util import MAGIC_NUMBER

from pyexec.guest.archive import BadArchive, unpack
from pyexec.guest.cleanup import Dirty, FreshState
from pyexec.guest.home import create_user_site, link_setup_home
from pyexec.guest.interpreter import IGNORED_SIGNALS, STARTUP_PATH
from pyexec.guest.prestart import prepare_interpreter, prestart_interpreter
from pyexec.guest.processes import kill_all
from pyexec.guest.program import Program
from pyexec.guest.seccomp import install_filter
from pyexec.guest.usage import Memory
from pyexec.guest.wire import (
    CHUNK,
    LINGER_SECONDS,
    PLAN,
    READY,
    REJECTED,
    RETIRED,
    START,
    START_DEADLINE_SECONDS,
    STDIN,
    UNPACKED,
    WORK,
    InputEnded,
    read_frame,
    read_json,
    send,
    send_json,
)

GRACE_SECONDS = 5.0
"""The container ends this long after the program's deadline in any case."""
PR_SET_DUMPABLE = 4
REPORTS = "pyexec.guest.reports."
ALWAYS_USED = ("channel", "hooks", "evaluator")


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


def load_collector(texts):
    """Load the collector's modules, as bootstrap.py loads those of the supervisor, and return its function."""
    for name, text in texts:
        module = sys.modules[name] = type(sys)(name)
        exec(compile(text, name, "exec"), module.__dict__)
    return module.collect


class Supervisor:
    """Runs programs one after another. With `prestart`, it starts an interpreter for each in advance.

    `startup` is the archive that contains startup.py. `reports` has the texts of the modules with which a program
    reports, by name (see reports/channel.py)."""

    def __init__(self, prestart, startup, reports, memory):
        self.may_prestart = prestart
        self.startup = startup
        self.archive = None
        self.reports = report_code(reports)
        self.memory = memory
        self.frames = io.open(0, "rb", buffering=4 * CHUNK, closefd=False)
        self.fresh = FreshState(memory)
        self.prestarted = None
        self.has_run = False

    def serve(self):
        """Run programs until the server closes the connection, or until the sandbox cannot take another one."""
        self.send_ready()
        self.prestart()
        try:
            while self.run_program():
                self.clean()
                self.prestart()
                self.send_ready()
        except InputEnded:
            if self.has_run:
                send_json(REJECTED, code="abandoned", message="the server closed the connection")
                end_container_after(LINGER_SECONDS)
                linger()

    def send_ready(self):
        # Replicas of an earlier version, which may follow this sandbox, need the version of Python.
        send_json(READY, python=sys.version.split()[0])

    def prestart(self):
        create_user_site()
        self.archive = create_archive(self.startup)
        self.prestarted = prestart_interpreter(self.memory, self.archive) if self.may_prestart else None

    def run_program(self):
        """Run one program. Return True if another one may follow."""
        try:
            unpack(self.frames, WORK)
        except BadArchive as error:
            code = "disk_full" if error.disk_full else "bad_archive"
            send_json(REJECTED, code=code, message=str(error)[:1000])
            return False
        link_setup_home()
        create_user_site()
        send(UNPACKED)
        plan, stdin = read_json(self.frames, PLAN), read_frame(self.frames, STDIN)
        program = self.prepare(
            prepare_interpreter(plan, self.prestarted, self.memory, self.archive, self.reports), stdin
        )
        prepared = time.monotonic()
        start = read_json(self.frames, START)
        if time.monotonic() - prepared > START_DEADLINE_SECONDS:
            send_json(REJECTED, code="late", message="the start signal came too late")
            return False
        if program.interpreter.has_exited():
            program.interpreter.discard()
            program = self.prepare(
                prepare_interpreter(plan, None, self.memory, self.archive, self.reports), stdin
            )
        self.has_run = True
        end_container_after(start["timeout"] + GRACE_SECONDS)
        program.run(start)
        end_container_after(LINGER_SECONDS)
        if start["collector"]:
            load_collector(start["collector"])(start["files"], send)
        if not start["reuse"]:
            linger()
        return True

    def prepare(self, interpreter, stdin):
        """Return the program, ready to start in this interpreter."""
        interpreter.streams.stdin.fill(stdin)
        return Program(interpreter, self.memory)

    def clean(self):
        """Restore the sandbox to its initial state. If that fails, wait for the server to remove it."""
        try:
            self.fresh.restore()
        except Dirty as reason:
            send_json(RETIRED, reason=str(reason)[:1000])
            linger()
        signal.setitimer(signal.ITIMER_REAL, 0)


def startup_archive(source):
    """Return a zip archive with startup.py, compiled. Python can import from it without a file system.

    Compiling it in each interpreter would take 3 ms of processor time; a small program takes about 20 ms in all."""
    path = STARTUP_PATH + "/sitecustomize.py"
    code = marshal.dumps(compile(source, path, "exec", dont_inherit=True))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("sitecustomize.pyc"), MAGIC_NUMBER + bytes(12) + code)
    return buffer.getvalue()


def report_code(texts):
    """Return the modules with which programs report, for reports/channel.py.

    Every run that reports needs some of them, so they are compiled once. The others are compiled when they are used:
    compiling all takes 10 ms, and memory that the kernel counts for a while."""
    return marshal.dumps(
        {
            name: marshal.dumps(compile(text, REPORTS + name, "exec")) if name in ALWAYS_USED else text
            for name, text in texts.items()
        }
    )


def create_archive(content):
    """Return a descriptor of a file in memory with this content.

    Code that an interpreter loads before startup.py can reach it. So each program gets a file of its own, which `clean`
    closes, and nothing can write to it."""
    fd = os.memfd_create("startup", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def linger():
    """Keep the container, so that a restarted server can still read its last frames, until the last alarm ends it."""
    while True:
        signal.pause()


def main(prestart, startup, reports, filters):
    """Serve programs, from READY to the end of the container.

    `startup` is the text of startup.py, `reports` is that of `Supervisor`, and `filters` are those of seccomp.py."""
    memory = Memory()
    set_dumpable(0)
    install_filter(filters)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(WORK)
    Supervisor(prestart, startup_archive(startup), reports, memory).serve()
