"""Start the process that runs a program: the image's own interpreter, with the program's input, output and reports.

Part of the supervisor (see bootstrap.py)."""

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import termios

from pyexec.guest.home import USER, user_base
from pyexec.guest.usage import private_bytes
from pyexec.guest.wire import CHUNK, REPORT, REPORT_BYTES_EXTRA, STDERR, STDOUT, WORK, send_data

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals reset to their defaults for the program. The interpreter itself ignores the last two."""
SECRET_BYTES, NUMBER_BYTES = 16, 8
REPORTS_AT_ONCE = 32
"""Messages with reports that one poll forwards, in as few frames as possible."""
SO_PASSRIGHTS = 83
STARTUP_PATH = "/proc/self/fd/5"
"""The archive that contains startup.py, as the program's process sees it."""
NO_PARAMETERS = b"0"
NOT_STARTED = 126 << 8
"""Wait status for a program that could not be started: exit code 126, as in a shell."""


class Stdin:
    """The program's standard input: a pipe that the supervisor fills while the program reads.

    The supervisor keeps the whole input until the end, so the memory of the input is part of the baseline (see
    usage.py). It does not count as the program's."""

    def __init__(self):
        self.program_end, self.fd = os.pipe()
        os.set_blocking(self.fd, False)
        self.rest = memoryview(b"")
        self.is_open = True

    def fill(self, data):
        """Start to write this input. The program need not run yet."""
        self.rest = memoryview(data)
        self.feed()

    def feed(self):
        """Write what fits into the pipe. Close it after the last byte, or when no process can read it."""
        try:
            while self.rest:
                self.rest = self.rest[os.write(self.fd, self.rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self.close()

    def close(self):
        """Close the supervisor's end, if it is open. The program then reads the end of its input."""
        if self.is_open:
            os.close(self.fd)
            self.is_open = False


EVALUATE = "__import__('sys').modules['pyexec.guest.reports.hooks'].evaluate()"
"""The program that runs a script and reports the value of its last expression."""


class Streams:
    """The input and output of a program.

    `outputs` maps the supervisor's descriptors to the kinds of frames that their data goes into. `ends` maps these
    kinds to the program's descriptors."""

    def __init__(self):
        self.stdin = Stdin()
        self.outputs = {}
        self.ends = {}
        for kind in (STDOUT, STDERR):
            read, self.ends[kind] = os.pipe()
            os.set_blocking(read, False)
            self.outputs[read] = kind
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        refuse_descriptors(ours)
        self.channel, self.channel_end = ours.detach(), theirs.detach()
        self.secret = None
        self.report_bytes = 0
        """How much the program may report."""

    def open_channel(self, display_bytes, code):
        """Let the program report: send a secret, the limit of its displays, and the code (see reports/channel.py)."""
        self.secret = os.urandom(SECRET_BYTES)
        os.write(self.channel, self.secret + display_bytes.to_bytes(NUMBER_BYTES, "big") + code)
        self.outputs[self.channel] = REPORT
        self.report_bytes = display_bytes + REPORT_BYTES_EXTRA

    def close_channel(self):
        """Tell the program that it does not report."""
        os.close(self.channel)
        self.channel = None

    def close(self):
        """Close the supervisor's descriptors if no program will use them."""
        self.stdin.close()
        for fd in {*self.outputs, self.channel} - {None}:
            os.close(fd)


def refuse_descriptors(receiver):
    """Let no process send descriptors to this socket: the supervisor would have to close them, which can take long.

    Linux before 6.16 does not have the option."""
    with contextlib.suppress(OSError):
        receiver.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)


class ReportForwarder:
    """Forwards what the program reports over its socket (reports/channel.py), up to a limit. The server decodes it.

    Only messages that begin with the program's secret are forwarded."""

    def __init__(self, streams):
        self.secret = streams.secret
        self.bytes_left = streams.report_bytes
        self.cut = False
        """True if something was dropped."""

    def forward(self, fd, message):
        """Forward this message and some that follow. Drop what exceeds the limit."""
        reports = bytearray()
        messages_left = REPORTS_AT_ONCE
        while message:
            if message.startswith(self.secret):
                reports += message[SECRET_BYTES:]
            messages_left -= 1
            try:
                message = os.read(fd, CHUNK) if messages_left else b""
            except (BlockingIOError, ConnectionResetError):
                break
        self.cut = self.cut or len(reports) > self.bytes_left
        del reports[self.bytes_left :]
        self.bytes_left -= len(reports)
        send_data(REPORT, reports)


def environment(pairs):
    """Return the image's variables with the program's user, home and packages, the caller's variables, and a PYTHONPATH
    that leads to startup.py. See home.py and docs/design/user-and-home.md."""
    variables = {"PYTHONUSERBASE": user_base(), "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_NO_CACHE_DIR": "1"}
    variables.update(os.environ, HOME=WORK, USER=USER, LOGNAME=USER)
    scripts = (variables["PYTHONUSERBASE"] + "/bin", WORK + "/.local/bin", os.environ.get("PATH", os.defpath))
    variables["PATH"] = ":".join(dict.fromkeys(scripts))
    variables.update(pair.split("=", 1) for pair in pairs)
    paths = variables.get("PYTHONPATH")
    variables["PYTHONPATH"] = STARTUP_PATH + ":" + paths if paths else STARTUP_PATH
    return variables


class Interpreter:
    """A process of the image's interpreter, and its streams.

    After `launch`, it waits for the start signal in startup.py. `start_program` sends that signal, and launches the
    process first if necessary."""

    is_loaded = False
    """True if the interpreter has finished its own start, so that its memory is known."""

    def __init__(self, arguments, pairs, memory, startup):
        """`startup` is a descriptor of the archive that contains startup.py."""
        self.pairs = pairs
        self.memory = memory
        self.streams = Streams()
        parameters_end, self.parameters_pipe = os.pipe()
        self.ready_pipe, ready_end = os.pipe()
        self.inherited = (
            self.streams.stdin.program_end, self.streams.ends[STDOUT], self.streams.ends[STDERR],
            parameters_end, ready_end, startup, self.streams.channel_end,
        )  # fmt: skip
        """The descriptors that become 0, 1, 2, ... in the process. They are greater than these numbers, because
        usage.py has opened its files before."""
        self.program_ends = [*self.inherited[:5], self.streams.channel_end]
        self.arguments = arguments
        self.parameters = NO_PARAMETERS
        self.pid = 0
        self.exited = False

    @property
    def memory_bytes(self):
        """Return the interpreter's own memory. It counts as the program's, as if both had started together."""
        return private_bytes(self.pid) if self.pid else 0

    def launch(self):
        """Start the process. Raise `OSError` or `ValueError` if that is not possible.

        `posix_spawn` is much faster than a fork, because it copies nothing of this process. The program inherits no
        other descriptors of the supervisor, and `exec` makes it dumpable again."""
        with self.memory.killed_first():
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable] + self.arguments,
                environment(self.pairs),
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self.inherited)],
                setsid=True,
                setsigdef=CHANGED_SIGNALS,
            )
        self.close_program_ends()

    def close_program_ends(self):
        """Close the supervisor's copies of the program's descriptors, so that the program holds the only ones."""
        for end in self.program_ends:
            os.close(end)

    def close_control(self):
        """Close the supervisor's ends of the pipes to startup.py."""
        os.close(self.parameters_pipe)
        os.close(self.ready_pipe)

    def has_exited(self):
        """Return True if the process is gone. When memory runs out, the kernel kills it first."""
        if self.pid and not self.exited:
            self.exited = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return self.exited

    def start_program(self):
        """Start the program. Return its process id, and its wait status if it could not be started (else None)."""
        try:
            os.write(self.parameters_pipe, self.parameters)  # fits into the pipe
        except OSError:
            os.kill(self.pid, signal.SIGKILL)  # it has just died
        self.close_control()
        if self.pid:
            return self.pid, None
        try:
            self.launch()
        except (OSError, ValueError) as error:
            text = "the program could not be started: %s\n" % error
            os.write(self.streams.ends[STDERR], text.encode("utf-8", "replace"))
            self.close_program_ends()
            return 0, NOT_STARTED
        return self.pid, None

    def discard(self):
        """Kill the process and close its streams."""
        if self.pid and not self.has_exited():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.close_control()
        self.streams.close()


def readable(fd):
    """Return True if a read of this descriptor returns at once, with data or with its end."""
    return bool(poll(fd))


def has_ended(fd):
    """Return True if no process has the other end of this socket, and no bytes are left in it."""
    left = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, left)
    return not any(left) and any(event & select.POLLHUP for _, event in poll(fd))


def poll(fd):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return poller.poll(0)
