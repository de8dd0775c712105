"""Run the cells of a session in its interpreter, and enforce their limits.

Part of the supervisor of a session (see bootstrap.py)."""

import os
import select
import signal
import sys
import time

from pyexec.guest.home import create_user_site
from pyexec.guest.processes import kill_all
from pyexec.guest.program import REAPED_AT_ONCE, RateLimiter
from pyexec.guest.session_cell import INTERRUPT_SECONDS, drain, forward, receive
from pyexec.guest.session_interpreter import SessionInterpreter, exited
from pyexec.guest.session_limits import Limits
from pyexec.guest.wire import CHUNK, STDERR

START_SECONDS = 20.0
"""An interpreter that is not ready by then is killed."""
IDLE_CHECK_SECONDS = 1.0
IDLE_RESTART_SECONDS = 10.0
"""Between cells, the interpreter is restarted at most this often, unless the server requests it."""


class Cells:
    """The interpreter of a session, and its current cell."""

    def __init__(self, frames, memory, archive, reports):
        self.frames = frames
        self.memory = memory
        self.archive = archive
        self.reports = reports
        self.pairs = ()
        self.limits = None
        self.interpreter = None
        self.ready_by = 0.0
        self.status = None
        """The wait status of the interpreter's process, when it has ended."""
        self.cell = None
        self.kill_at = None
        self.restarted_at = 0.0
        self.limiter = RateLimiter()

    def start_interpreter(self, pairs):
        create_user_site()
        self.pairs, self.status = tuple(pairs), None
        self.ready_by = time.monotonic() + START_SECONDS
        self.interpreter = SessionInterpreter(pairs, self.memory, self.archive, self.reports)

    def wait_until_ready(self):
        """Wait until the interpreter is ready. Return the reason if it is not, else None."""
        while not self.interpreter.is_ready:
            is_dead = self.interpreter.is_dead or self.interpreter.channel is None
            if is_dead or time.monotonic() > self.ready_by:
                return self.discard_interpreter()
            poller = select.poll()
            poller.register(self.interpreter.channel, select.POLLIN)
            if poller.poll(50):
                self.receive()
            self.reap()
            if self.status is not None:
                self.interpreter.is_dead = True
        return None

    def discard_interpreter(self):
        """Kill everything. Return what the interpreter has printed last."""
        self.kill_processes()
        text = self.interpreter.start_failure()
        self.interpreter.close()
        self.interpreter = None
        return text or "it was not ready within %g s" % START_SECONDS

    def open(self, plan):
        """Apply the plan. If the interpreter does not start, return whether it does without `env_vars`, and why."""
        starts = self.interpreter is not None
        if starts and not self.interpreter.fits(plan["env"]):
            self.discard_interpreter()
        self.limits = Limits(self.memory, plan["memory_bytes"], plan["disk_bytes"])
        if self.interpreter is None:
            self.memory.set_baseline()
            self.start_interpreter(plan["env"])
            failure = self.wait_until_ready()
            if failure:
                return starts, failure
        else:
            self.memory.set_baseline(self.interpreter.process.memory_bytes)
            self.pairs = tuple(plan["env"])
            self.interpreter.set_variables(plan["env"])
        return None

    def restart(self, reason):
        """Kill all processes and start a new interpreter. This ends a running cell."""
        cell, status = self.cell, self.status
        self.kill_processes()
        if cell is None:
            self.frames.send_event("restarted", reason=reason)
        else:
            self.drain()
            reason = cell.reason or ("killed" if reason == "requested" else reason)
            self.end(reason, status if status is not None else signal.SIGKILL, restarted=True)
        self.limits.reset()
        if self.interpreter is not None:
            self.interpreter.close()
        self.limits.remove_files(reason)
        self.restarted_at = time.monotonic()
        self.start_interpreter(self.pairs)

    def begin(self, cell):
        """Begin a cell. Do nothing if it is the last one again. Raise `ValueError` if another one is running."""
        if cell.nonce == self.frames.nonce:
            return
        if self.cell is not None:
            raise ValueError("another cell is running")
        self.cell, self.kill_at = cell, None
        self.frames.begin_cell(cell.nonce)
        self.limits.begin_cell()
        if self.interpreter is None:
            self.start_interpreter(self.pairs)
        self.send_cell()

    def send_cell(self):
        """Give the cell to the interpreter, if it is ready."""
        if self.interpreter.is_ready and not self.cell.is_sent:
            self.cell.begin()
            self.interpreter.run(self.cell.nonce, self.cell.code, self.cell.display_bytes)
            self.cell.code = ()

    def interrupt(self):
        """Raise KeyboardInterrupt in the cell, as soon as its code runs."""
        if self.cell is None:
            return
        if self.cell.has_begun:
            self.interpreter.interrupt()
        else:
            self.cell.interrupt_waits = True

    def runs(self, nonce):
        return self.cell is not None and self.cell.nonce == nonce

    def stop(self, reason):
        """End the cell by an interrupt. If that does not help, `check` restarts the interpreter."""
        if self.cell.reason is None:
            self.cell.reason = reason
            self.kill_at = time.monotonic() + INTERRUPT_SECONDS
            self.interrupt()

    def end(self, reason, status, restarted=False):
        """Send how the cell has ended. `status` is that of a process; an interpreter that continues has none."""
        signalled = os.WIFSIGNALED(status)
        self.frames.end_cell(
            reason=reason,
            exit_code=128 + os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status),
            signalled=signalled,
            cpu_seconds=round(self.limits.cpu_seconds(), 6),
            peak_memory_bytes=max(0, self.memory.peak),
            interpreter_restarted=restarted,
            result_truncated=self.cell.cut,
            process_limit=self.limits.processes.reached(),
        )
        self.cell = self.kill_at = None

    def check(self):
        """Enforce the limits. Return the seconds until the next check."""
        self.reap()  # one signal stands for several ends, and `reap` handles only some of them at once
        now = time.monotonic()
        if self.interpreter is not None and (self.status is not None or self.interpreter.is_dead):
            self.handle_death()
        exceeded, seconds = self.limits.exceeded(now)
        cell = self.cell
        if cell is None:
            if exceeded:
                self.end_idle_processes(exceeded)
            return IDLE_CHECK_SECONDS
        if exceeded:
            cell.reason = exceeded
            self.restart(exceeded)
            return 0
        if self.interpreter is None or (not self.interpreter.is_ready and now > self.ready_by):
            self.fail_start()
            return 0
        if self.kill_at is not None:
            if now >= self.kill_at:
                self.restart(cell.reason)
                return 0
            return min(seconds, self.kill_at - now)
        if now >= cell.deadline:
            self.stop("timeout")
        elif self.limits.cpu_seconds() > cell.cpu_seconds:
            self.stop("cpu_limit")
        return min(seconds, max(0.0, cell.deadline - now), self.limits.seconds_to_cpu_limit(cell))

    def handle_death(self):
        """Handle the end of the interpreter's process."""
        if not self.interpreter.is_ready and self.cell is None:
            self.discard_interpreter()
        elif not self.interpreter.is_ready:
            self.fail_start()
        else:
            reason = "out_of_memory" if self.memory.was_exhausted() else "exit"
            if self.cell is None:
                self.end_idle_processes(reason)
            else:
                self.restart(reason)

    def end_idle_processes(self, reason):
        """Kill all processes between two cells. Start a new interpreter, if that has not just been done.

        Otherwise, the next cell starts it: files of the session can make every interpreter end or exceed a limit."""
        if time.monotonic() > self.restarted_at + IDLE_RESTART_SECONDS:
            self.restart(reason)
        elif self.interpreter is not None:
            self.discard_interpreter()
            self.limits.reset()
            self.limits.remove_files(reason)
            self.frames.send_event("restarted", reason=reason)

    def fail_start(self):
        """End the cell: the interpreter does not start again, for example because of the session's own files."""
        reason = self.discard_interpreter() if self.interpreter is not None else ""
        text = "the interpreter did not start: " + reason
        self.frames.send_cell(STDERR, self.cell.take_output((text + "\n").encode("utf-8", "replace")))
        self.end(self.cell.reason or "exit", exited(1), restarted=True)

    def handle(self, fd):
        """Handle an event of one descriptor of the interpreter."""
        if self.interpreter is None or fd not in self.interpreter.streams.outputs:
            return  # a new interpreter has replaced it
        if fd == self.interpreter.channel:
            self.interpreter.send()
            self.receive()
        elif self.cell is not None:  # it may have ended with an event of the same poll
            forward(self.interpreter, self.cell, self.frames, fd, CHUNK)
            self.check_output()
        if self.cell is not None:
            self.limiter.wait()

    def receive(self):
        """Forward the program's reports, and handle the shell's messages."""
        _, messages = receive(self.interpreter, self.cell, self.frames)
        for document in messages:
            self.handle_message(document)

    def handle_message(self, document):
        """Handle a message of the shell. A forged one can only change how this session's own cells end."""
        cell = self.cell
        if document.get("ready") and not self.interpreter.is_ready:
            self.interpreter.is_ready = True
            if cell is not None:
                self.send_cell()
        elif cell is None or not cell.is_sent:
            return
        elif document.get("begun") == cell.nonce:
            cell.has_begun = True
            if cell.interrupt_waits:
                cell.interrupt_waits = False
                self.interpreter.interrupt()
        elif document.get("ended") == cell.nonce:
            code = document.get("exit_code")
            self.finish(code if isinstance(code, int) and 0 <= code <= 255 else 1)

    def finish(self, exit_code):
        """End a cell whose code has ended, with the output that is in the pipes."""
        self.drain()
        exceeded, _ = self.limits.exceeded(time.monotonic())
        if exceeded:
            self.cell.reason = exceeded
            self.restart(exceeded)
            return
        killed = "out_of_memory" if self.memory.was_exhausted() else None
        self.end(self.cell.reason or killed or "exit", exited(exit_code))

    def drain(self):
        if self.interpreter is not None:
            drain(self.interpreter, self.cell, self.frames)
            self.check_output()

    def check_output(self):
        if self.cell is not None and self.cell.exceeds_output:
            self.stop("output_limit")

    def reap(self):
        """Collect the exit statuses of processes that have ended."""
        self.wait(os.WNOHANG)

    def kill_processes(self):
        kill_all()
        self.wait(0)

    def wait(self, options):
        try:
            for _ in range(REAPED_AT_ONCE if options else sys.maxsize):
                pid, status = os.waitpid(-1, options)
                if not pid:
                    return
                is_interpreter = self.interpreter is not None and pid == self.interpreter.pid
                if is_interpreter and not os.WIFSTOPPED(status):  # a traced process also reports its stops
                    self.status = status
        except ChildProcessError:
            return
