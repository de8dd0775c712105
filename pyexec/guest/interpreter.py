"""Start the process that runs a program: the image's own interpreter, with the program's input and output.

Part of the supervisor (see bootstrap.py)."""

import os
import signal
import socket
import sys

from pyexec.guest.wire import RESULT, STDERR, STDOUT, WORK

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals reset to their defaults for the program. The interpreter itself ignores the last two."""
SECRET_BYTES = 16
NOT_STARTED = 126 << 8
"""Wait status for a program that could not be started: exit code 126, as in a shell."""


class Stdin:
    """The program's standard input: a pipe that the supervisor fills while the program reads.

    The supervisor keeps the whole input until the end, so the memory of the input is part of the baseline (see
    memory.py). It does not count as the program's."""

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
        """Write what fits into the pipe. Close it after the last byte, or if no process can read it any more."""
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

    def close_program_ends(self):
        """Close the supervisor's copies of the program's descriptors, so that the program holds the only ones."""
        for end in (self.stdin.program_end, *self.ends.values()):
            os.close(end)

    def close(self):
        """Close the supervisor's descriptors if no program will use them."""
        self.stdin.close()
        for fd in self.outputs:
            os.close(fd)


def spawn(arguments, pairs, streams, memory):
    """Start an interpreter and return its process id.

    `posix_spawn` is much faster than a fork, because it copies nothing of this process. The program inherits no
    descriptors of the supervisor, and `exec` makes it dumpable again."""
    standard = (streams.stdin.program_end, streams.ends[STDOUT], streams.ends[STDERR])
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
    """Return the image's environment with HOME, unbuffered output, and the caller's variables.

    Unbuffered output reaches the caller at once, and none is lost if the program is killed."""
    variables = dict(os.environ, HOME=WORK, PYTHONUNBUFFERED="1")
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
        return pid, status
