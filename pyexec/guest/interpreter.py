"""Start the process that runs a program: the image's own interpreter, with the program's input and output.

Part of the supervisor (see bootstrap.py)."""

import os
import signal
import socket
import sys

from pyexec.guest.home import USER, user_base
from pyexec.guest.wire import RESULT, STDERR, STDOUT, WORK

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals reset to their defaults for the program. The interpreter itself ignores the last two."""
SECRET_BYTES = 16
NOT_STARTED = 126 << 8
"""Wait status for a program that could not be started: exit code 126, as in a shell."""


class Streams:
    """The input and output of a program.

    `outputs` maps the supervisor's descriptors to the kinds of frames that their data goes into. `ends` maps these
    kinds to the program's descriptors."""

    def __init__(self):
        self.stdin = os.memfd_create("stdin")
        self.outputs = {}
        self.ends = {}
        for kind in (STDOUT, STDERR):
            read, self.ends[kind] = os.pipe()
            self.outputs[read] = kind
        self.secret = None

    def open_result(self):
        """Open a socket for the last expression's repr, with an unread secret in it (see evaluator.py).

        Return the program's descriptor."""
        read, end = (half.detach() for half in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        os.set_inheritable(end, True)
        self.secret = os.urandom(SECRET_BYTES)
        os.write(read, self.secret)
        self.outputs[read], self.ends[RESULT] = RESULT, end
        return end

    def fill_stdin(self, data):
        """Write the whole standard input. The program need not run yet."""
        view, offset = memoryview(data), 0
        while offset < len(view):
            offset += os.pwrite(self.stdin, view[offset:], offset)

    def close_program_ends(self):
        """Close the supervisor's copies of the program's descriptors, so that the program holds the only ones."""
        for end in self.ends.values():
            os.close(end)

    def close_stdin(self):
        """Close the supervisor's copy of the standard input."""
        os.close(self.stdin)

    def close(self):
        """Close the remaining descriptors if no program will use them."""
        for fd in (self.stdin, *self.outputs):
            os.close(fd)


def spawn(arguments, pairs, streams, memory):
    """Start an interpreter and return its process id.

    `posix_spawn` is much faster than a fork, because it copies nothing of this process. The program inherits no
    descriptors of the supervisor, and `exec` makes it dumpable again."""
    standard = (streams.stdin, streams.ends[STDOUT], streams.ends[STDERR])
    with memory.killed_first():
        return os.posix_spawn(
            sys.executable,
            [sys.executable] + arguments,
            environment(pairs),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)],
            setsid=True,
            setsigdef=CHANGED_SIGNALS,
        )


def environment(pairs):
    """Return the image's environment with the program's user, home and packages, and the caller's variables.

    Unbuffered output reaches the caller at once, and none is lost if the program is killed. See home.py and
    docs/design/user-and-home.md for the others."""
    variables = {"PYTHONUSERBASE": user_base(), "PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_NO_CACHE_DIR": "1"}
    variables.update(os.environ, HOME=WORK, USER=USER, LOGNAME=USER, PYTHONUNBUFFERED="1")
    scripts = (variables["PYTHONUSERBASE"] + "/bin", WORK + "/.local/bin", os.environ.get("PATH", os.defpath))
    variables["PATH"] = ":".join(dict.fromkeys(scripts))
    variables.update(pair.split("=", 1) for pair in pairs)
    return variables


class NewInterpreter:
    """An interpreter that starts at the start signal. It has the same methods as `PrestartedInterpreter`."""

    memory_bytes = 0

    def __init__(self, plan, memory):
        self.plan = plan
        self.memory = memory
        self.streams = Streams()
        self.evaluator = []
        if plan["evaluator"]:
            self.evaluator = ["-c", plan["evaluator"], str(self.streams.open_result())]

    def has_exited(self):
        return False

    def start_program(self):
        """Start the program. Return its process id, and its wait status if it could not be started (else None)."""
        arguments = self.evaluator + [self.plan["entrypoint"]] + self.plan["args"]
        try:
            pid, status = spawn(arguments, self.plan["env"], self.streams, self.memory), None
        except (OSError, ValueError) as error:
            text = "the program could not be started: %s\n" % error
            os.write(self.streams.ends[STDERR], text.encode("utf-8", "replace"))
            pid, status = 0, NOT_STARTED
        self.streams.close_program_ends()
        self.streams.close_stdin()
        return pid, status
