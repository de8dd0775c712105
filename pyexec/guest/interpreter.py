"""The process that runs a program: the image's own interpreter, with the program's input and output.

This file travels into the container as text, as supervisor.py says."""

import os
import signal
import socket
import sys

from pyexec.guest.wire import RESULT, STDERR, STDOUT, WORK

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""The interpreter itself ignores the last two. A program must find them all as it would elsewhere."""
SECRET_BYTES = 16
NOT_STARTED = 126 << 8
"""The status of a program that could not be started, as a shell gives it."""


class Streams:
    """What a program reads and prints. `outputs` tells what each descriptor here brings, `ends` what it is given."""

    def __init__(self):
        self.stdin = os.memfd_create("stdin")
        self.outputs = {}
        self.ends = {}
        for kind in (STDOUT, STDERR):
            read, self.ends[kind] = os.pipe()
            self.outputs[read] = kind
        self.secret = None

    def open_result(self):
        """A socket that takes the last expression's repr, with a secret in it by which that is known."""
        read, end = (half.detach() for half in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        os.set_inheritable(end, True)
        self.secret = os.urandom(SECRET_BYTES)
        os.write(read, self.secret)
        self.outputs[read], self.ends[RESULT] = RESULT, end
        return end

    def fill(self, data):
        """Makes this the whole standard input, and no process need have been started for that, or yet read."""
        view, offset = memoryview(data), 0
        while offset < len(view):
            offset += os.pwrite(self.stdin, view[offset:], offset)

    def hand_over(self):
        """The program has its ends now: when it closes them, nobody else holds them."""
        for end in self.ends.values():
            os.close(end)

    def close_input(self):
        """Nobody but the program holds its standard input, either."""
        os.close(self.stdin)

    def close(self):
        """Those of a process that is not needed."""
        for fd in (self.stdin, *self.outputs):
            os.close(fd)


def spawn(arguments, pairs, streams, memory):
    """The process id of a new interpreter. Far quicker than a fork: nothing of this process is copied. What it must
    not have of the supervisor goes by itself: descriptors close, and execution makes it dumpable."""
    standard = (streams.stdin, streams.ends[STDOUT], streams.ends[STDERR])
    with memory.dying_first():
        return os.posix_spawn(
            sys.executable,
            [sys.executable] + arguments,
            environment(pairs),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)],
            setsid=True,
            setsigdef=CHANGED_SIGNALS,
        )


def environment(pairs):
    """The image's own environment, unbuffered output (so that it shows as it is printed and none is lost when the
    program is killed), and on top what the caller asked for."""
    variables = dict(os.environ, HOME=WORK, PYTHONUNBUFFERED="1")
    variables.update(pair.split("=", 1) for pair in pairs)
    return variables


class Launch:
    """An interpreter that is started at the go-ahead."""

    held = 0

    def __init__(self, plan, memory):
        self.plan = plan
        self.memory = memory
        self.streams = Streams()
        self.evaluator = []
        if plan["evaluator"]:
            self.evaluator = ["-c", plan["evaluator"], str(self.streams.open_result())]

    def is_gone(self):
        return False

    def begin(self):
        """Starts the program: its process id, and its status if it has ended by that."""
        arguments = self.evaluator + [self.plan["entrypoint"]] + self.plan["args"]
        try:
            pid, status = spawn(arguments, self.plan["env"], self.streams, self.memory), None
        except (OSError, ValueError) as error:
            text = "the program could not be started: %s\n" % error
            os.write(self.streams.ends[STDERR], text.encode("utf-8", "replace"))
            pid, status = 0, NOT_STARTED
        self.streams.hand_over()
        self.streams.close_input()
        return pid, status
