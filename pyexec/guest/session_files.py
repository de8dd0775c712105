"""Read, write and delete the files of a session while its programs run.

A program can change its files and links at any time. So every directory on a path is opened by itself, never through a
link, and a file that is written appears under its name when it is complete. Part of the supervisor of a session (see
bootstrap.py)."""

import binascii
import errno
import json
import math
import os
import stat
import threading

from pyexec.guest.collector import DATA, FILE, OPEN, ROOT, Collection, collect
from pyexec.guest.session_frames import Outdated

WINDOW = 1024 * 1024
"""Bytes that a transfer may send before the server has confirmed them, so that a slow client delays no cell."""
FILE_COST = 256
"""Bytes of the window that the announcement of a file takes."""
NAMES_MAX = 32
CODES = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_a_directory",
    errno.EISDIR: "is_directory",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.ENAMETOOLONG: "invalid_path",
}


class InvalidPath(Exception):
    """The path does not lead to a file below /work."""


def names_of(path):
    """Return the names of a path relative to /work. Raise `InvalidPath` if it is not normalized."""
    names = path.split("/")
    if len(names) > NAMES_MAX or "\0" in path or any(name in ("", ".", "..") for name in names):
        raise InvalidPath("the path must be relative to /work, with at most %d names" % NAMES_MAX)
    return names


def parent_of(names, create):
    """Open the directory of a path, and create it if `create` is true. The caller closes it."""
    folder = os.open(ROOT, OPEN | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            if create:
                try:
                    os.mkdir(name, 0o755, dir_fd=folder)
                except FileExistsError:
                    pass
            inner = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return folder
    except BaseException:
        os.close(folder)
        raise


class Writing:
    """A file that the server writes."""

    def __init__(self, transfer, path):
        self.transfer = transfer
        *_, self.name = names = names_of(path)
        self.folder = parent_of(names, create=True)
        self.temporary = ".%s.part" % binascii.hexlify(os.urandom(8)).decode()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = os.open(self.temporary, flags, 0o644, dir_fd=self.folder)
        except BaseException:
            os.close(self.folder)
            raise

    def write(self, data):
        data = memoryview(data)
        while data:
            data = data[os.write(self.file, data) :]

    def finish(self):
        """Give the complete file its name. What has the name, such as a link, is replaced; a directory is not."""
        os.rename(self.temporary, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self.temporary = None

    def close(self):
        os.close(self.file)
        if self.temporary is not None:
            try:
                os.unlink(self.temporary, dir_fd=self.folder)
            except OSError:
                pass  # the program has removed it
        os.close(self.folder)


class Files:
    """The transfers of one session, one after another. The server begins the next one when it knows the end of the
    last; a new one ends the last."""

    def __init__(self, frames):
        self.frames = frames
        self.writing = None
        self.credit = threading.Condition()
        self.bytes_left = 0

    def handle(self, command, payload):
        """Handle a line about files."""
        if command == "DATA":
            self.receive(payload)
            return
        request = json.loads(payload)
        if command == "CREDIT":
            with self.credit:
                self.bytes_left += request["bytes"]
                self.credit.notify_all()
            return
        self.stop()
        if command == "CANCEL":
            return
        transfer = request["id"]
        self.frames.set_transfer(transfer)
        if command == "READ":
            self.bytes_left = WINDOW
            threading.Thread(target=self.read, args=(transfer, request), daemon=True).start()
        else:
            self.attempt(transfer, command, request["path"])

    def stop(self):
        """End the current transfer."""
        self.frames.set_transfer(None)
        if self.writing is not None:
            self.writing.close()
            self.writing = None
        with self.credit:
            self.credit.notify_all()

    def attempt(self, transfer, command, path):
        """Begin to write a file, or delete one."""
        try:
            if command == "WRITE":
                self.writing = Writing(transfer, path)
                return
            names = names_of(path)
            folder = parent_of(names, create=False)
            try:
                if stat.S_ISDIR(os.stat(names[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                    raise IsADirectoryError(errno.EISDIR, "it is a directory")
                os.unlink(names[-1], dir_fd=folder)
            finally:
                os.close(folder)
        except (OSError, ValueError, InvalidPath) as error:
            self.fail(transfer, error)
        else:
            self.done(transfer, None, "")

    def receive(self, payload):
        """Write the next bytes of a file. An empty line ends it. After a failure, the rest is dropped."""
        writing = self.writing
        if writing is None:
            return
        try:
            if payload:
                writing.write(binascii.a2b_base64(payload))
                return
            writing.finish()
        except (OSError, ValueError) as error:
            self.stop()
            self.frames.set_transfer(writing.transfer)
            self.fail(writing.transfer, error)
        else:
            writing.close()
            self.writing = None
            self.done(writing.transfer, None, "")

    def read(self, transfer, request):
        """Send what `request` asks for: lists of files, or their contents. Runs in a thread."""

        def send(kind, payload):
            if kind in (DATA, FILE):
                self.wait_for_credit(transfer, len(payload) if kind == DATA else FILE_COST)
            self.frames.send_file(transfer, kind, payload)

        try:
            collect(request, send, SessionCollection)
            self.done(transfer, None, "")
        except Outdated:
            return
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            self.fail(transfer, error)

    def wait_for_credit(self, transfer, size):
        with self.credit:
            while self.bytes_left <= 0:
                if self.frames.transfer != transfer:
                    raise Outdated
                self.credit.wait(1.0)
            self.bytes_left -= size

    def fail(self, transfer, error):
        code = CODES.get(getattr(error, "errno", None), "error")
        if isinstance(error, InvalidPath):
            code = "invalid_path"
        # The text of an OSError has the name of the temporary file.
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        self.done(transfer, code, text[:500])

    def done(self, transfer, error, message):
        self.frames.send_event("file_done", id=transfer, error=error, message=message)


class SessionCollection(Collection):
    """Collects files that may change meanwhile. With `request["list"]`, it sends only their names and sizes."""

    def __init__(self, request, send):
        super().__init__(request, send)
        self.only_names = request["list"]
        self.deadline = math.inf  # the client decides how long the transfer takes

    def send_content(self, file, path, size):
        if self.only_names:
            return
        before = os.fstat(file).st_mtime_ns
        super().send_content(file, path, size)
        self.truncated |= os.fstat(file).st_mtime_ns != before

    def check_size(self, size):
        if not self.only_names:
            super().check_size(size)
