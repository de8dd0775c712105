"""Run the caller's program, from the start signal until every process that it has started is dead.

Part of the supervisor (see bootstrap.py)."""

import contextlib
import math
import os
import resource
import select
import signal
import time

from pyexec.guest.interpreter import ReportForwarder, has_ended, readable
from pyexec.guest.processes import ProcessLimit, kill_all, processes_that_take
from pyexec.guest.usage import DISK_TOLERANCE, CpuTime, disk_bytes_used
from pyexec.guest.wire import (
    CHUNK,
    EXIT,
    HEADER,
    KILL,
    REPORT,
    STARTED,
    send_data,
    send_json,
)

FASTEST_ALLOCATION = 8 * 2**30
"""Bytes per second. The supervisor checks memory and disk again before a program of this speed could exceed a limit."""
FIRST_CHECK_SECONDS, LONGEST_CHECK_SECONDS = 0.002, 0.25
"""The first and the longest pause between two checks of memory and disk. While an interpreter is new, pauses begin with
the first one and double, so that the peak memory of short programs is measured. A prestarted one has the longest."""
POLLS_PER_SECOND, POLL_BURST, PAUSE_SECONDS = 250, 1000, 0.01
"""A program can wake the supervisor all the time, by printing single bytes or by starting processes that end. Above
this rate the supervisor pauses, so that more output goes into one frame. This saves processor time here and in the
server."""
MUCH_OUTPUT = 4096
"""A poll that brings so many bytes is not limited: the output limit bounds the number of such polls."""
REAPED_AT_ONCE = 256
CPUS = os.cpu_count() or 1
SERVER = 0
"""The descriptor from which the supervisor reads frames of the server."""
FLUSH_SECONDS, FLUSH_SECONDS_OF_KILL = 0.4, 0.2
"""How much longer a program may run at a limit, and at a kill request, until it has flushed its unfinished lines."""
FLUSH_PAUSES = 0.002, 0.032
"""The first and the longest pause after which the supervisor checks again whether all lines are flushed."""


class Program:
    """A program in an interpreter, with its limits."""

    def __init__(self, interpreter, memory):
        """Prepare everything that is possible before the start signal, because the caller waits afterwards."""
        self.interpreter = interpreter
        self.memory = memory
        self.status = None
        self.kill_requested = False
        self.reports = ReportForwarder(interpreter.streams)
        self.stdin = interpreter.streams.stdin
        self.streams = interpreter.streams.outputs
        self.poller = select.poll()
        self.wakeup_read, self.wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poller.register(self.wakeup_read, select.POLLIN)
        for fd in self.streams:
            self.poller.register(fd, select.POLLIN | select.POLLHUP)
        self.poller.register(SERVER, select.POLLIN)
        if self.stdin.is_open:
            self.poller.register(self.stdin.fd, select.POLLOUT)
        self.cpu = CpuTime(interpreter.pid)
        self.largest = 0
        self.process_limit = ProcessLimit()
        memory.set_baseline(interpreter.memory_bytes)

    def run(self, start):
        """Start the program, forward its output, and enforce its limits until it ends. Send STARTED, and EXIT."""
        self.output_left = start["output_bytes"]
        self.memory_bytes = start["memory_bytes"]
        self.disk_bytes = start["disk_bytes"] + DISK_TOLERANCE
        self.cpu_limit = math.inf if start["cpu_seconds"] is None else start["cpu_seconds"]
        self.pid, self.status = self.interpreter.start_program()
        send_json(
            STARTED,
            nonce=start["nonce"],
            cpu_seconds=max(0, round(self.cpu.baseline + time.process_time(), 6)),
            memory_bytes=max(0, self.memory.baseline),
        )
        deadline = time.monotonic() + start["timeout"]
        limiter = RateLimiter()
        pause = LONGEST_CHECK_SECONDS if self.interpreter.is_loaded else FIRST_CHECK_SECONDS
        while self.status is None:
            now = time.monotonic()
            if now >= deadline:
                return self.stop("timeout")
            memory_left = self.memory_bytes - self.memory.used()
            disk_left = self.disk_bytes - disk_bytes_used()
            cpu_left = self.cpu_limit - self.cpu.seconds()
            if cpu_left < 0:
                return self.stop("cpu_limit")
            if disk_left < 0:
                return self.stop("disk_limit")
            if memory_left < 0 or self.memory.has_too_many_kills():
                return self.stop("out_of_memory")
            if self.process_limit.is_fork_bomb(now):
                return self.stop("process_limit")
            if self.kill_requested:
                return self.stop("killed")
            seconds = min(memory_left, disk_left) / FASTEST_ALLOCATION
            seconds = min(seconds, cpu_left / CPUS)
            seconds = min(deadline - now, max(0.01, seconds), pause)
            pause = min(2 * pause, LONGEST_CHECK_SECONDS)
            left = self.output_left + self.reports.bytes_left
            if not self.handle(self.poller.poll(seconds * 1000 + 1)):
                return self.stop("output_limit")
            if left - self.output_left - self.reports.bytes_left < MUCH_OUTPUT:
                limiter.wait()
        return self.stop("exit")

    def handle(self, events):
        """Handle the events of one poll. Return False if the program exceeds its output limit."""
        for fd, _ in events:
            if fd == self.wakeup_read:
                os.read(fd, 4096)
                self.reap()
            elif fd == SERVER:
                self.read_kill_request()
            elif fd == self.stdin.fd and self.stdin.is_open:
                self.feed_stdin()
            elif not self.forward(fd):
                return False
        return True

    def read_kill_request(self):
        """Read the frame that may follow the start signal, or the end of the connection, after which none comes."""
        data = os.read(SERVER, HEADER.size)
        self.kill_requested = data[:1] == KILL
        if not data:
            self.poller.unregister(SERVER)

    def feed_stdin(self):
        """Write more of the standard input. Stop polling its pipe when the pipe is closed."""
        self.stdin.feed()
        if not self.stdin.is_open:
            self.poller.unregister(self.stdin.fd)

    def forward(self, fd):
        """Forward the available output of one descriptor. Return False if the program exceeds its output limit."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True  # the program has opened its output through /proc, and has read it first
        except ConnectionResetError:
            data = b""  # the program has ended without reading what the socket has for it
        if not data and (self.streams[fd] != REPORT or has_ended(fd)):  # a process can send an empty report
            self.close_stream(fd)
            return True
        if self.streams[fd] == REPORT:
            self.reports.forward(fd, data)
            return True
        exceeded = len(data) > self.output_left
        data = data[: self.output_left]
        self.output_left -= len(data)
        send_data(self.streams[fd], data)
        return not exceeded

    def close_stream(self, fd):
        self.poller.unregister(fd)
        os.close(fd)
        del self.streams[fd]

    def reap(self):
        """Collect the exit statuses of processes that have ended."""
        for _ in range(REAPED_AT_ONCE):
            try:
                if not self.wait(os.WNOHANG):
                    return
            except ChildProcessError:
                return
        # Return to the loop to check the deadline, then continue. If signals have filled the pipe, it does so anyway.
        with contextlib.suppress(BlockingIOError):
            os.write(self.wakeup_write, b"\0")

    def wait(self, options):
        """Wait for a process, and keep its size and the main process's exit status. Return its id, or 0.

        A new process inherits the size that the supervisor has reached, so a smaller size tells nothing. A traced
        process also reports each signal that stops it."""
        pid, status, usage = os.wait4(-1, options)
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
            self.largest = max(self.largest, usage.ru_maxrss * 1024)
        if pid == self.pid and not os.WIFSTOPPED(status):
            self.status = status
        return pid

    def flush_lines(self, seconds):
        """Let all processes flush unfinished lines, and forward their output. Return False at the output limit.

        A process has done that when it blocks the signal (see startup.py). Other processes get no signal: it would end
        them, and the program could report that."""
        deadline, pause = time.monotonic() + seconds, FLUSH_PAUSES[0]
        while self.status is None and time.monotonic() < deadline:
            waiting = processes_that_take(signal.SIGRTMAX)
            if not waiting:
                break
            for pid in waiting:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGRTMAX)
            if not self.handle_for(pause):
                return False
            pause = min(2 * pause, FLUSH_PAUSES[1])
        return True

    def handle_for(self, seconds):
        """Handle events for this time. Return False if the program exceeds its output limit."""
        deadline = time.monotonic() + seconds
        while self.status is None and (left := deadline - time.monotonic()) > 0:
            if not self.handle(self.poller.poll(left * 1000)):
                return False
        return True

    def stop(self, reason):
        """Kill all processes, forward the rest of their output, and send EXIT."""
        if reason in ("timeout", "cpu_limit", "disk_limit", "out_of_memory", "killed"):
            seconds = FLUSH_SECONDS_OF_KILL if reason == "killed" else FLUSH_SECONDS
            reason = reason if self.flush_lines(seconds) else "output_limit"
        kill_all()
        with contextlib.suppress(ChildProcessError):
            while True:
                self.wait(0)
        if not self.drain():
            reason = "output_limit"
        if reason == "exit":
            reason = self.limit_exceeded_at_end() or reason
        if os.WIFSIGNALED(self.status):
            code = 128 + os.WTERMSIG(self.status)
        else:
            code = os.WEXITSTATUS(self.status)
        send_json(
            EXIT,
            reason=reason,
            exit_code=code,
            signalled=os.WIFSIGNALED(self.status),
            cpu_seconds=round(self.cpu.seconds(), 6),
            # The size of a process counts a page once for each mapping, so it can exceed the limit.
            peak_memory_bytes=max(self.memory.peak, min(self.largest, self.memory_bytes)),
            result_truncated=self.reports.cut,
            process_limit=self.process_limit.reached(),
        )

    def drain(self):
        """Forward the rest of the output; all processes are dead. Return False if the output limit is exceeded.

        The other end of a pipe may still be in flight in a socket: a process has sent it there, and none has received
        it. So the end of the pipe does not come, and the pipe counts as empty when nothing is left to read."""
        complete = True
        for fd in list(self.streams):
            while complete and fd in self.streams and readable(fd):
                complete = self.forward(fd)
            if fd in self.streams:
                self.close_stream(fd)
        return complete

    def limit_exceeded_at_end(self):
        """Return the limit that the program exceeded since the last check, or None. All its processes are dead.

        The kernel may have killed a child process only, and files remain. Files are the cause if they exceed their
        own limit, because they take memory of the container."""
        if disk_bytes_used() > self.disk_bytes:
            return "disk_limit"
        if self.memory.was_exhausted() or self.memory.used() > self.memory_bytes:
            return "out_of_memory"
        if self.cpu.seconds() > self.cpu_limit:
            return "cpu_limit"
        return None


class RateLimiter:
    """Limits the polls per second, after a first burst (a token bucket)."""

    def __init__(self):
        self.credit = POLL_BURST
        self.updated = time.monotonic()

    def wait(self):
        """Use one poll; pause if too many have been used."""
        now = time.monotonic()
        self.credit = min(POLL_BURST, self.credit + (now - self.updated) * POLLS_PER_SECOND) - 1
        self.updated = now
        if self.credit < 0:
            time.sleep(PAUSE_SECONDS)
