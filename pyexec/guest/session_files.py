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
from pyexec.guest.session_frames import Outdated, Transfer

WINDOW = 1024 * 1024
"""Bytes that a transfer may send before the server has confirmed them. So a slow client delays no cell, and no other
transfer."""
FILE_COST = 4096
"""Bytes of the window that the announcement of a file takes. The server limits frames per second, and those of a cell
wait behind those of all lists. With 256 bytes, a short cell took 3.1 s during four lists of 15,000 files
(2026-11-28)."""
FILE_PIECE = 128 * 1024
"""Bytes of a file in one frame."""
NAMES_MAX = 32
CONTENTS_SEARCH_SECONDS = 30.0
"""How much longer the search for contents may take than one for names. The server lists the names first, and the
response of a complete list must not be cut off because the second search was a little slower."""
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


class Writing(Transfer):
    """A file that the server writes."""

    def __init__(self, number, path):
        super().__init__(number)
        self.size = 0
        *_, self.name = names = names_of(path)
        self.folder = parent_of(names, create=True)
        self.temporary = ".%s.part" % binascii.hexlify(os.urandom(8)).decode()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file = os.open(self.temporary, flags, 0o644, dir_fd=self.folder)
        except BaseException:
            os.close(self.folder)
            raise

    def check_offset(self, at):
        """Raise `ValueError` if bytes are missing: lines can get lost if an earlier owner of the session writes."""
        if at != self.size:
            raise ValueError("expected offset %d, got %d" % (self.size, at))

    def write(self, data):
        self.size += len(data)
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


class Reading(Transfer):
    """Files that the server reads. A thread sends them."""

    def __init__(self, number):
        super().__init__(number)
        self.bytes_left = WINDOW
        self.credit = threading.Condition()

    def add_credit(self, size):
        with self.credit:
            self.bytes_left += size
            self.credit.notify_all()

    def use_credit(self, size):
        """Wait until the server has confirmed enough. Raise `Outdated` if the transfer is cancelled."""
        with self.credit:
            while self.bytes_left <= 0 and not self.has_ended:
                self.credit.wait()
            self.bytes_left -= size
        if self.has_ended:
            raise Outdated

    def close(self):
        """Wake the thread: the transfer is cancelled."""
        with self.credit:
            self.credit.notify_all()


class Files:
    """The transfers of one session, by number. None of them waits for another."""

    def __init__(self, frames):
        self.frames = frames
        self.transfers = {}

    def handle(self, command, payload, data):
        """Handle a line about files. `data` are the bytes that follow it."""
        request = json.loads(payload)
        number = request["id"]
        if command == "DATA":
            self.receive(number, request["at"], binascii.a2b_base64(data) if request["base64"] else data)
        elif command == "CREDIT":
            if number in self.transfers:
                self.transfers[number].add_credit(request["bytes"])
        elif command == "CANCEL":
            self.cancel(number)
        elif command == "READ":
            self.begin_to_read(number, request)
        elif command == "WRITE":
            self.begin_to_write(number, request["path"])
        else:
            self.delete(Transfer(number), request["path"])

    def cancel(self, number):
        transfer = self.transfers.pop(number, None)
        if transfer is not None:
            self.frames.cancel(transfer)
            transfer.close()

    def stop(self):
        """Cancel all transfers."""
        for number in list(self.transfers):
            self.cancel(number)

    def begin_to_write(self, number, path):
        try:
            self.transfers[number] = Writing(number, path)
        except (OSError, ValueError, InvalidPath) as error:
            self.fail(Transfer(number), error)

    def receive(self, number, at, data):
        """Write the next bytes of a file. A line without bytes ends it. After a failure, the rest is dropped."""
        writing = self.transfers.get(number)
        if writing is None:
            return
        try:
            writing.check_offset(at)
            if data:
                writing.write(data)
                return
            writing.finish()
        except (OSError, ValueError) as error:
            self.fail(writing, error)
        else:
            self.frames.end_transfer(writing, None, "")
        del self.transfers[number]
        writing.close()

    def delete(self, transfer, path):
        try:
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
            self.frames.end_transfer(transfer, None, "")

    def begin_to_read(self, number, request):
        self.transfers = {each: kept for each, kept in self.transfers.items() if not kept.has_ended}
        self.transfers[number] = reading = Reading(number)
        try:
            threading.Thread(target=self.read, args=(reading, request), daemon=True).start()
        except RuntimeError as error:  # the program has as many processes and threads as it may
            self.fail(reading, error)

    def read(self, reading, request):
        """Send what `request` asks for: lists of files, or their contents. Runs in a thread."""

        def send(kind, payload):
            if kind in (DATA, FILE):
                reading.use_credit(len(payload) if kind == DATA else FILE_COST)
            self.frames.send_transfer(reading, kind, payload)

        try:
            collect(request, send, SessionCollection)
            self.frames.end_transfer(reading, None, "")
        except Outdated:
            return
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            self.fail(reading, error)

    def fail(self, transfer, error):
        """Send why a transfer has failed."""
        code = CODES.get(getattr(error, "errno", None), "error")
        if isinstance(error, InvalidPath):
            code = "invalid_path"
        # The text of an OSError has the name of the temporary file.
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        self.frames.end_transfer(transfer, code, text[:500])


class SessionCollection(Collection):
    """Collects files that may change meanwhile. With `request["list"]`, it sends only their names and sizes."""

    piece_bytes = FILE_PIECE

    def send_piece(self, data):
        self.send(DATA, data)

    def __init__(self, request, send):
        super().__init__(request, send)
        self.only_names = request["list"]
        self.deadline = math.inf  # the client decides how long the transfer takes
        if not self.only_names:
            self.search_deadline += CONTENTS_SEARCH_SECONDS

    def send_content(self, file, path, size):
        if self.only_names:
            return
        before = os.fstat(file).st_mtime_ns
        super().send_content(file, path, size)
        self.truncated |= os.fstat(file).st_mtime_ns != before

    def check_size(self, size):
        if not self.only_names:
            super().check_size(size)
