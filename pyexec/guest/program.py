"""The caller's program, from the go-ahead to the end of everything that it started.

This file travels into the container as text, as supervisor.py says."""

import os
import resource
import select
import signal
import time

from pyexec.guest.interpreter import SECRET_BYTES
from pyexec.guest.wire import CHUNK, EXIT, RESULT, RESULT_BYTES_MAX, STARTED, send, send_data, send_json

FASTEST_ALLOCATION = 8 * 2**30
"""Bytes a second: how soon a program can use up what it has left decides how soon to look again."""
LOOKS_PER_SECOND, LOOKS_AT_ONCE, PAUSE_SECONDS = 1000, 1000, 0.01
"""A program that prints byte by byte, or rings for its children all the time, is looked at no more often than this,
and a pause is made when it is: what it has printed meanwhile goes into one frame. Both ends would have much to do."""
REAPED_AT_ONCE = 256


class Program:
    """What an interpreter runs, held to its limits."""

    def __init__(self, interpreter, memory):
        """Does all that can be done before the go-ahead comes: afterwards every step keeps the caller waiting."""
        self.interpreter = interpreter
        self.memory = memory
        self.secret = interpreter.streams.secret
        self.status = None
        self.result = bytearray()
        self.streams = interpreter.streams.outputs
        self.poller = select.poll()
        self.wake, self.woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poller.register(self.wake, select.POLLIN)
        for fd in self.streams:
            self.poller.register(fd, select.POLLIN | select.POLLHUP)
        self.spent = spent_by_children()
        memory.mark(interpreter.held)

    def run(self, go):
        self.left = go["output_bytes"]
        self.pid, self.status = self.interpreter.begin()
        send(STARTED)
        deadline = time.monotonic() + go["timeout"]
        pace = Pace()
        while self.status is None:
            now = time.monotonic()
            if now >= deadline:
                return self.stop("timeout")
            room = go["memory_bytes"] - self.memory.used()
            if room < 0:
                return self.stop("out_of_memory")
            look = min(deadline - now, max(0.01, min(0.25, room / FASTEST_ALLOCATION)))
            for fd, _ in self.poller.poll(look * 1000 + 1):
                if fd == self.wake:
                    os.read(fd, 4096)
                    self.reap()
                elif not self.copy(fd):
                    return self.stop("output_limit")
            pace.keep()
        return self.stop("exit")

    def copy(self, fd):
        """Passes on what is there; False once the program has printed more than it may."""
        try:
            data = os.read(fd, CHUNK)
        except (ConnectionResetError, BlockingIOError):
            # The evaluator has ended and did not need the secret; or all have ended, and one had sent the other end
            # of this pipe into a socket that nobody has received it from.
            data = b""
        if not data:
            self.poller.unregister(fd)
            os.close(fd)
            del self.streams[fd]
            return True
        if self.streams[fd] == RESULT:
            if data.startswith(self.secret) and len(self.result) <= RESULT_BYTES_MAX:
                self.result += data[SECRET_BYTES:]
            return True
        over = len(data) > self.left
        data = data[: self.left]
        self.left -= len(data)
        send_data(self.streams[fd], data)
        return not over

    def reap(self):
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.note(pid, status)
        os.write(self.woken, b"\0")  # there may be more, and always more: the deadline comes first

    def note(self, pid, status):
        """A program that has asked to be traced only stops on a signal, and its parent hears of that, too."""
        if pid == self.pid and not os.WIFSTOPPED(status):
            self.status = status

    def stop(self, reason):
        """Kills all that is left, passes on what it had printed, and says how it ended."""
        kill_all()
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            self.note(pid, status)
        for fd in list(self.streams):
            os.set_blocking(fd, False)
            while fd in self.streams:
                if not self.copy(fd):
                    reason = "output_limit"
                    break
        if (
            reason == "exit" and self.memory.was_exhausted()
        ):  # whichever of its processes the kernel has killed
            reason = "out_of_memory"
        if os.WIFSIGNALED(self.status):
            code = 128 + os.WTERMSIG(self.status)
        else:
            code = os.WEXITSTATUS(self.status)
        send_data(RESULT, self.result[:RESULT_BYTES_MAX])
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        send_json(
            EXIT,
            reason=reason,
            exit_code=code,
            signalled=os.WIFSIGNALED(self.status),
            cpu_seconds=round(spent_by_children() - self.spent, 6),
            peak_memory_bytes=max(self.memory.peak, largest),
            result_truncated=len(self.result) > RESULT_BYTES_MAX,
        )


class Pace:
    """Keeps looks from being too many a second, a first burst aside."""

    def __init__(self):
        self.credit = LOOKS_AT_ONCE
        self.then = time.monotonic()

    def keep(self):
        now = time.monotonic()
        self.credit = min(LOOKS_AT_ONCE, self.credit + (now - self.then) * LOOKS_PER_SECOND) - 1
        self.then = now
        if self.credit < 0:  # what makes it look is the program's doing, which may never stop
            time.sleep(PAUSE_SECONDS)


def spent_by_children():
    """Seconds of processor time that those have used who are gone."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kill_all():
    """SIGKILL to every process of the container but this one, in one step that no fork can outrun."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
