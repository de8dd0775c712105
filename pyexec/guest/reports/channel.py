"""Report from the program's process to the server: displays, the last expression's value, and the exception.

startup.py loads this module and hooks.py before the script, if the run reports. They import only modules that the
interpreter has already loaded: any other import could load a file of the caller with the same name. See
docs/design/displays.md."""

import _thread
import marshal
import os
import sys

PACKAGE = "pyexec.guest.reports."
SECRET_BYTES, NUMBER_BYTES = 16, 8
CHUNK = 32 * 1024
"""Bytes of a record in one message."""
RESULT, RESULT_CUT, DISPLAY, DROPPED, EXCEPTION = b"r", b"c", b"d", b"x", b"e"
"""Kinds of records. RESULT_CUT is a result of which only the beginning is sent; DROPPED stands for displays,
or parts of them, that are not sent. EXCEPTION is empty if no exception has ended the main thread. A record is its kind,
four bytes for its length (big-endian), and its fields or its text."""
BINARY, TEXT, JSON, METADATA = b"b", b"t", b"j", b"m"
"""Kinds of the fields of a display: values of a MIME type by their form, and the metadata as JSON."""
CAUGHT, CAUSE, CONTEXT, FRAME, OMITTED, OWN_LINE = b"x", b"c", b"h", b"f", b"o", b"l"
"""Kinds of the fields of an exception (see exceptions.py)."""
FIELD_OVERHEAD = 64
"""Bytes that a field can take in the result in addition to its name and value."""
RESULT_BYTES_MAX = 64 * 1024
"""The repr of a last expression is cut after this."""
DISPLAYS_MAX = 1000
"""Further displays of a run are dropped."""


def field(kind, name, value):
    """Encode a field: its kind, two bytes for the length of its name, the name, four for the value's, the value."""
    name = name.encode("utf-8", "backslashreplace")[:0xFFFF]
    return kind + len(name).to_bytes(2, "big") + name + len(value).to_bytes(4, "big") + value


class Channel:
    """The socket to the supervisor, which preserves message boundaries. Each message begins with the secret."""

    def __init__(self, fd, secret, display_bytes):
        self.fd = fd
        self.secret = secret
        self.pid = os.getpid()
        self.socket = identity(fd)
        self.bytes_left = display_bytes
        self.displays_left = DISPLAYS_MAX
        self.has_dropped = False
        self.waiting = []
        self.lock = _thread.allocate_lock()

    def is_open(self):
        """Return False in a forked process, and if the program has closed or replaced the descriptor."""
        return os.getpid() == self.pid and identity(self.fd) == self.socket

    def send(self, kind, payload):
        """Send a record. If another thread, or the code that a signal has interrupted, is sending, it sends this record
        next."""
        self.waiting.append(memoryview(kind + len(payload).to_bytes(4, "big") + payload))
        while self.waiting and self.lock.acquire(False):
            try:
                self.send_waiting()
            finally:
                self.lock.release()

    def send_waiting(self):
        while self.waiting:
            record = self.waiting[0]
            try:
                if self.is_open():
                    os.write(self.fd, self.secret + record[:CHUNK])
            except OSError:
                record = b""  # the supervisor is ending the program
            record = record[CHUNK:]
            if record:
                self.waiting[0] = record
            else:
                del self.waiting[0]

    def send_display(self, payload, size):
        """Send a display that takes `size` bytes in the result, if the run may still have it."""
        if size > self.bytes_left or not self.displays_left:
            self.drop_display()
            return
        if not payload:
            return
        self.bytes_left -= size
        self.displays_left -= 1
        self.send(DISPLAY, payload)

    def drop_display(self):
        """Report, once, that a display or a part of it is not sent."""
        if not self.has_dropped:
            self.has_dropped = True
            self.send(DROPPED, b"")

    def send_result(self, text):
        """Send the repr of the last expression."""
        kind = RESULT if len(text) <= RESULT_BYTES_MAX else RESULT_CUT
        self.send(kind, text[:RESULT_BYTES_MAX])


def identity(fd):
    """Return the device and the inode of the descriptor's file; None if the descriptor is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def load(*names):
    """Load modules of this package, unless they are loaded, each after those that it imports. Return the last one.

    A module becomes visible when it is complete: other threads and signal handlers may load it at the same time."""
    for name in names:
        module = sys.modules.get(PACKAGE + name)
        if module is None:
            module = type(sys)(PACKAGE + name)
            code = codes[name]
            code = marshal.loads(code) if isinstance(code, bytes) else compile(code, PACKAGE + name, "exec")
            exec(code, module.__dict__)
            module = sys.modules.setdefault(PACKAGE + name, module)
    return module


def without_own_frames(trace):
    """Return a traceback without the first frames, if they are of this package."""
    while trace and trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trace = trace.tb_next
    return trace


codes: "dict[str, bytes | str]" = {}
"""The modules of this package, by name: compiled, or as text. `start` sets this and `channel`."""
channel = None


def start(fd, message):
    """Open the channel with the first message of the supervisor (see interpreter.py), and prepare the process."""
    global channel, codes
    limits_end = SECRET_BYTES + NUMBER_BYTES
    codes = marshal.loads(message[limits_end:])
    channel = Channel(fd, message[:SECRET_BYTES], int.from_bytes(message[SECRET_BYTES:limits_end], "big"))
    load("hooks").install()
