"""The interpreter of a session: a process with IPython's shell (reports/session_shell.py), and its connections.

The shell is in the program's own process, so the supervisor does not trust its messages. Part of the supervisor of a
session (see bootstrap.py)."""

import collections
import contextlib
import json
import os
import signal

from pyexec.guest.interpreter import SECRET_BYTES, Interpreter, has_ended
from pyexec.guest.prestart import READ_AT_START
from pyexec.guest.wire import CHUNK, STDERR

SERVE = "__import__('sys').modules['pyexec.guest.reports.channel'].load('session_shell').main()"
HELLO, VARIABLES, CELL, CODE = b"H", b"V", b"C", b"D"
"""Messages to the shell: its secret, variables, a cell, and the next bytes of the cell's code."""
MESSAGES_AT_ONCE = 32
MESSAGE_MAX = 4096
REASON_BYTES = 2000


class SessionInterpreter:
    """A process that runs cells, one after another.

    `pairs` are the session's variables. Messages of the process count only if they begin with a secret: one for
    reports, and another one for messages of the shell."""

    def __init__(self, pairs, memory, archive, reports):
        self.process = Interpreter(["-c", SERVE], pairs, memory, archive)
        self.streams = self.process.streams
        self.streams.open_channel(0, reports)
        self.streams.stdin.close()
        self.secret = os.urandom(SECRET_BYTES)
        self.outgoing = collections.deque([HELLO + self.secret])
        self.is_ready = False
        self.is_dead = False
        try:
            self.process.launch()
            with contextlib.suppress(BrokenPipeError):  # it has ended already, and says why on stderr
                os.write(self.process.parameters_pipe, self.process.parameters)
        except (OSError, ValueError) as error:
            os.write(self.streams.ends[STDERR], ("%s\n" % error).encode("utf-8", "replace"))
            self.process.close_program_ends()
            self.is_dead = True
        os.close(self.process.parameters_pipe)
        self.send()

    @property
    def pid(self):
        return self.process.pid

    @property
    def channel(self):
        return self.streams.channel

    def send(self):
        """Send waiting messages. A shell that does not read never blocks the supervisor."""
        if self.channel is None:
            return
        try:
            while self.outgoing:
                os.write(self.channel, self.outgoing[0])
                self.outgoing.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()  # the process has closed the socket: it ends, or the cell runs into its timeout

    def set_variables(self, pairs):
        self.outgoing.append(VARIABLES + json.dumps(pairs).encode())
        self.send()

    def run(self, nonce, code, display_bytes):
        """Send a cell. `code` is a list of pieces."""
        header = {"nonce": nonce, "size": sum(map(len, code)), "display_bytes": display_bytes}
        self.outgoing.append(CELL + json.dumps(header).encode())
        self.outgoing.extend(CODE + piece for piece in code)
        self.send()

    def receive(self):
        """Read what is available. Return the number of bytes read, the reports among them, and a list of the shell's
        messages."""
        size, reports, messages = 0, bytearray(), []
        for _ in range(MESSAGES_AT_ONCE):
            try:
                message = os.read(self.channel, CHUNK)
            except OSError:
                break
            if not message:
                break
            size += len(message)
            if message.startswith(self.streams.secret):
                reports += message[SECRET_BYTES:]
            elif message.startswith(self.secret) and len(message) <= MESSAGE_MAX:
                messages.append(parse(message[SECRET_BYTES:]))
        return size, reports, messages

    def has_hung_up(self):
        """Return True if no process has the other end of the socket, and all its messages have been read."""
        return has_ended(self.channel)

    def fits(self, pairs):
        """Return True if these variables can be set now: none is read only when the process starts."""
        return not any(READ_AT_START.match(name) or name.startswith("IPYTHON") for name in names_of(pairs))

    def interrupt(self):
        """Send SIGINT to the process and the children in its group, as Ctrl-C in a terminal does."""
        if self.is_dead:
            return
        for send in (os.killpg, os.kill):
            try:
                send(self.pid, signal.SIGINT)
                return
            except OSError:
                continue  # the program has left its group, or has ended

    def start_failure(self):
        """Return the end of what the process has printed on stderr before it ended."""
        text = b""
        for fd in [fd for fd, kind in self.streams.outputs.items() if kind == STDERR]:
            with contextlib.suppress(BlockingIOError):
                text = os.read(fd, CHUNK)
        return text.decode("utf-8", "replace").strip()[-REASON_BYTES:]

    def close_output(self, fd):
        """Close a stream that no process can write to."""
        os.close(fd)
        del self.streams.outputs[fd]
        if fd == self.channel:
            self.streams.channel = None

    def close(self):
        """Close the connections. The process is dead."""
        self.streams.close()
        os.close(self.process.ready_pipe)


def names_of(pairs):
    return [pair.split("=", 1)[0] for pair in pairs]


def parse(message):
    """Return the document of a message; an empty one if it is none."""
    try:
        document = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def exited(exit_code):
    """Return the wait status of a process that has ended with this exit code."""
    return exit_code << 8
