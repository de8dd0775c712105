"""Find the output files that a run asks for, and send them to the server. See docs/design/output-files.md.

This file and patterns.py travel into the container as text, in the START frame of a run that wants files. They use
only the standard library of Python 3.8 or later. They run in the supervisor after all processes of the program are
dead, so the files no longer change. But a hostile program may have prepared them. So the collector opens only regular
files below /work, resolves links itself instead of following them, and has a limit for everything."""

import binascii
import collections
import contextlib
import json
import os
import re
import stat
import time

from pyexec.guest.patterns import expand, is_name, select

FILE, DATA, SKIPPED, COLLECTED = b"N", b"D", b"K", b"C"
NO_MATCH, NOT_A_FILE, UNREADABLE, INVALID_NAME = "no_match", "not_a_file", "unreadable", "invalid_name"
LINK_OUTSIDE, LINK_BROKEN, LINK_LOOP = "link_outside", "link_broken", "link_loop"
SETUP_FILE, SETUP_HOME_NAME = "setup_file", "root"
"""Links of home.py lead to files that the setup left in its home, /root."""
TOO_LARGE, TOO_MANY, TOO_DEEP, TIMEOUT = "too_large", "too_many", "too_deep", "timeout"
TRUNCATING_REASONS = {INVALID_NAME, TOO_LARGE, TOO_MANY, TOO_DEEP, TIMEOUT, UNREADABLE}
"""The reasons for which a file or directory below /work is missing, so that the result is truncated."""

ROOT, ROOT_NAME = "/work", "work"
SEARCH_SECONDS = 2.0
"""How long the search may take, not counting the time for sending files."""
SECONDS = 20.0  # no new file is sent after this time
ENTRIES_MAX = 100000
"""How many directory entries are read for patterns with wildcards, and for whole directories."""
DEPTH_MAX = 32
LINKS_MAX = 40  # to one file, as in Linux
PIECE = 12000  # bytes of a file in one frame (see wire.py)
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Folder = collections.namedtuple("Folder", "fd place path trail")
"""An open directory. `place` is where it is: the names below /work, without links. `path` is how it was reached.
`trail` contains the places of the directories on this path, to detect loops."""


def collect(request, send, kind=None):
    """Send the name, the size and the content of each file that matches one of `request["patterns"]`.

    Report each skipped file, and at the end each pattern that matched nothing or whose files were not all found. `send`
    takes the kind and the payload of a frame. `kind` is a class to use instead of `Collection`."""
    collection = (kind or Collection)(request, send)
    patterns = {(number, tuple(pattern.split("/"))) for number, pattern in enumerate(request["patterns"])}
    try:
        collection.walk((), "", patterns, ((),))
    except (Aborted, OSError):
        collection.stop({number for number, _ in patterns}, UNREADABLE)
    report = {
        "truncated": collection.truncated,
        "skipped_truncated": collection.skipped_truncated,
        "patterns": collection.unsatisfied(len(patterns)),
    }
    send(COLLECTED, json.dumps(report).encode())


class Skip(Exception):
    """A file or directory is skipped, for the reason that is the argument."""


class Aborted(Exception):
    """A file cannot be read to its end, although its beginning is already sent."""


class Collection:
    """Sends files, tracks how much of each limit is left, and records what was not sent."""

    piece_bytes = PIECE

    def __init__(self, request, send):
        self.send = send
        self.bytes_left = request["bytes_max"]
        self.files_left = request["files_max"]
        self.names_bytes_left = request["names_bytes_max"]
        self.path_bytes_max = request["path_bytes_max"]
        self.skipped_left = request["skipped_max"]
        self.skipped_bytes_left = request["skipped_bytes_max"]
        self.unsafe = re.compile(request["unsafe"])
        self.entries_left = ENTRIES_MAX
        self.search_deadline = time.monotonic() + SEARCH_SECONDS
        self.deadline = time.monotonic() + SECONDS
        self.truncated = self.skipped_truncated = False
        self.explained = set()
        """The numbers of patterns that need no report: a file was found, or a skipped path explains why not."""
        self.stopped = {}
        """Why not all files of a pattern were found, by the number of the pattern."""

    def walk(self, place, path, patterns, trail):
        """Visit the entries of a directory that match the first parts of `patterns`, pairs of a number and parts."""
        with opened_folder(place) as fd:
            folder = Folder(fd, place, path, trail)
            patterns = expand(patterns)
            for name in self.names(folder, patterns):
                if self.is_late():
                    self.stop({number for number, _ in patterns}, TIMEOUT)
                    return
                wanted, named, deeper = select(patterns, name)
                if named or deeper:
                    self.try_to_visit(folder, name, wanted, named, deeper)

    def names(self, folder, patterns):
        """Return the names to visit: those in the patterns; all entries if a pattern does not begin with a name."""
        names = {parts[0] for _, parts in patterns if is_name(parts[0])}
        searching = {number for number, parts in patterns if not is_name(parts[0])}
        if searching:
            with os.scandir(folder.fd) as entries:
                for entry in entries:
                    self.entries_left -= 1
                    if self.exhausted():
                        self.stop(searching, self.exhausted())
                        break
                    names.add(entry.name)
        return sorted(names)

    def exhausted(self):
        """Return the reason for which the search ends, or None."""
        if self.entries_left < 0 or not self.files_left:
            return TOO_MANY
        return TIMEOUT if self.is_late() else None

    def is_late(self):
        return time.monotonic() > min(self.search_deadline, self.deadline)

    def try_to_visit(self, folder, name, wanted, named, deeper):
        """Visit an entry, or record why it is skipped."""
        numbers = named | {number for number, _ in deeper}
        try:
            mode = os.lstat(name, dir_fd=folder.fd).st_mode
            if not self.exhausted():
                self.visit(folder, name, mode, wanted, deeper)
            elif not stat.S_ISDIR(mode):
                self.stop(wanted, self.exhausted())
            else:
                self.stop({number for number, _ in deeper}, self.exhausted())
        except FileNotFoundError:
            return
        except (Skip, OSError) as error:
            reason = error.args[0] if isinstance(error, Skip) else UNREADABLE
            # Links that lead nowhere are not reported if only ** matches them, because no pattern names them.
            if named or reason in TRUNCATING_REASONS:
                self.explained |= numbers
                self.skip(folder.path + name, reason)

    def visit(self, folder, name, mode, wanted, deeper):
        """Send a regular file, or walk into a directory. A link counts as what it leads to."""
        place = folder.place + (name,)
        if stat.S_ISLNK(mode):
            place, mode = self.resolve(folder.place, name)
        if stat.S_ISDIR(mode):
            if not deeper:
                return
            if place in folder.trail:
                raise Skip(LINK_LOOP)
            if len(folder.trail) == DEPTH_MAX:
                raise Skip(TOO_DEEP)
            self.walk(place, folder.path + name + "/", deeper, folder.trail + (place,))
        elif wanted:
            if not stat.S_ISREG(mode):
                raise Skip(NOT_A_FILE)
            with opened_folder(place[:-1]) as parent, opened(place[-1], parent) as file:
                self.send_file(file, folder.path + name)
            self.explained |= wanted

    def resolve(self, place, name):
        """Return where a link leads, and the mode found there. All links on the way are resolved, as the kernel does.

        `place` is the link's directory; None stands for the root directory of the container."""
        todo, links, mode = [name], 0, stat.S_IFDIR
        while todo:
            if self.is_late():
                raise Skip(TIMEOUT)
            part = todo.pop()
            if part in ("", "."):
                continue
            if not stat.S_ISDIR(mode):
                raise Skip(LINK_BROKEN)
            if part == "..":
                place = place[:-1] if place else None
            elif place is None:
                if part != ROOT_NAME:
                    raise Skip(SETUP_FILE if part == SETUP_HOME_NAME else LINK_OUTSIDE)
                place = ()
            elif len(place) > DEPTH_MAX:
                raise Skip(TOO_DEEP)
            else:
                mode, target = read_entry(place, part)
                if target is None:
                    place += (part,)
                    continue
                links += 1
                if links > LINKS_MAX:
                    raise Skip(LINK_BROKEN)
                if target.startswith("/"):
                    place = None
                todo += reversed(target.split("/"))
            mode = stat.S_IFDIR
        if place is None:
            raise Skip(LINK_OUTSIDE)
        return place, mode

    def send_file(self, file, path):
        """Send a complete file, or nothing of it."""
        size = os.fstat(file).st_size
        length = len(os.fsencode(path))
        if self.unsafe.search(path) or length > self.path_bytes_max:
            raise Skip(INVALID_NAME)
        if length > self.names_bytes_left:
            raise Skip(TOO_MANY)
        self.check_size(size)
        self.files_left -= 1
        self.names_bytes_left -= length
        begun = time.monotonic()
        self.send(FILE, json.dumps({"path": path, "size": size}).encode())
        self.send_content(file, path, size)
        self.search_deadline += time.monotonic() - begun

    def check_size(self, size):
        if size > self.bytes_left:
            raise Skip(TOO_LARGE)
        self.bytes_left -= size

    def send_content(self, file, path, size):
        while size:
            try:
                data = os.read(file, min(self.piece_bytes, size))
            except OSError as error:
                raise Aborted(path) from error
            if not data:
                raise Aborted(path)
            size -= len(data)
            self.send_piece(data)

    def send_piece(self, data):
        self.send(DATA, binascii.b2a_base64(data, newline=False))

    def skip(self, path, reason):
        """Report a path that is skipped, as long as the limits of such reports allow it."""
        self.truncated |= reason in TRUNCATING_REASONS
        text = self.unsafe.sub("\ufffd", path).encode()
        if len(text) > self.path_bytes_max:
            text = text[: self.path_bytes_max - 3].decode("utf-8", "ignore").encode() + "…".encode()
        if not self.skipped_left or len(text) > self.skipped_bytes_left:
            self.skipped_truncated = True
            return
        self.skipped_left -= 1
        self.skipped_bytes_left -= len(text)
        self.send(SKIPPED, json.dumps({"path": text.decode(), "reason": reason}).encode())

    def stop(self, numbers, reason):
        """Record that not all files of these patterns can be found."""
        for number in numbers:
            self.truncated = True
            self.stopped.setdefault(number, reason)

    def unsatisfied(self, count):
        """Return the number of each pattern that matched nothing or whose files were not all found, and the reason."""
        reasons = {number: NO_MATCH for number in range(count) if number not in self.explained}
        return sorted({**reasons, **self.stopped}.items())


@contextlib.contextmanager
def opened(name, directory):
    """Open an entry of a directory, and close its descriptor at the end."""
    file = os.open(name, OPEN, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def opened_folder(place):
    """Open the directory at a place below /work, one name after the other, so that no name can be a link."""
    folder = os.open(ROOT, OPEN | os.O_DIRECTORY)
    try:
        for name in place:
            inner = os.open(name, OPEN | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def read_entry(place, name):
    """Return the mode of an entry, and the target if it is a link, else None."""
    try:
        with opened_folder(place) as folder:
            mode = os.lstat(name, dir_fd=folder).st_mode
            return mode, os.readlink(name, dir_fd=folder) if stat.S_ISLNK(mode) else None
    except FileNotFoundError:
        raise Skip(LINK_BROKEN) from None
