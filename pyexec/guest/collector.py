"""Find the output files that a run asks for, and send them to the server. See docs/design/output-files.md.

This file travels into the container as text, in the START frame of a run that wants files. It uses only the standard
library of Python 3.8 or later. It runs in the supervisor after all processes of the program are dead, so the files no
longer change. But a hostile program may have prepared them. So the collector opens only regular files, follows no
links, and has a limit for everything."""

import binascii
import contextlib
import fnmatch
import functools
import json
import os
import re
import stat
import time

FILE, DATA, COLLECTED = b"N", b"D", b"C"

ROOT = "/work"
SECONDS = 20.0
"""No new file is sent after this time."""
ENTRIES_MAX = 100000
"""How many directory entries are read for patterns with wildcards."""
DEPTH_MAX = 32
PIECE = 12000
"""Bytes of a file in one frame (see wire.py)."""
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def collect(order, send):
    """Send the name, the size and the content of each file that matches one of `order["patterns"]`.

    At the end, report if files are missing. `send` takes the kind and the payload of a frame."""
    collection = Collection(order, send)
    patterns = [tuple(pattern.split("/")) for pattern in order["patterns"]]
    with opened(ROOT, None, os.O_DIRECTORY) as root:
        collection.walk(root, "", patterns, 1)
    send(COLLECTED, json.dumps({"truncated": collection.truncated}).encode())


class Collection:
    """Sends files, counts what is left of the limits, and records whether a matching file was not sent."""

    def __init__(self, order, send):
        self.send = send
        self.bytes_left = order["bytes_max"]
        self.files_left = order["files_max"]
        self.names_bytes_left = order["names_bytes_max"]
        self.path_bytes_max = order["path_bytes_max"]
        self.unsafe = re.compile(order["unsafe"])
        self.entries_left = ENTRIES_MAX
        self.deadline = time.monotonic() + SECONDS
        self.truncated = False

    def walk(self, directory, path, patterns, depth):
        """Visit the entries of an open directory that match the first parts of `patterns`. `path` is its path."""
        patterns = expand(patterns)
        for name in self.names(directory, patterns):
            wanted = any(len(parts) == 1 and matches(parts[0], name) for parts in patterns)
            deeper = [rest for parts in patterns for rest in descend(parts, name)]
            if not wanted and not deeper:
                continue
            if self.is_exhausted():
                self.truncated = True
                return
            try:
                self.visit(directory, name, path + name, wanted, deeper, depth)
            except FileNotFoundError:
                continue
            except OSError:
                self.truncated = True

    def names(self, directory, patterns):
        """Return the names to visit: those in the patterns; all entries if a pattern begins with a wildcard."""
        if not any(has_wildcard(parts[0]) for parts in patterns):
            return sorted({parts[0] for parts in patterns})
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self.entries_left -= 1
                if self.is_exhausted():
                    self.truncated = True
                    break
                names.append(entry.name)
        return sorted(names)

    def is_exhausted(self):
        return self.entries_left < 0 or not self.files_left or time.monotonic() > self.deadline

    def visit(self, directory, name, path, wanted, deeper, depth):
        """Send a regular file, or walk into a directory."""
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) and wanted:
            with opened(name, directory, 0) as file:
                self.send_file(file, path)
        elif stat.S_ISDIR(mode) and deeper:
            if depth == DEPTH_MAX:
                self.truncated = True
                return
            with opened(name, directory, os.O_DIRECTORY) as inner:
                self.walk(inner, path + "/", deeper, depth + 1)

    def send_file(self, file, path):
        """Send a complete file, or nothing of it."""
        size = os.fstat(file).st_size
        length = len(os.fsencode(path))
        if (
            self.unsafe.search(path)
            or length > min(self.path_bytes_max, self.names_bytes_left)
            or size > self.bytes_left
        ):
            self.truncated = True
            return
        self.files_left -= 1
        self.names_bytes_left -= length
        self.bytes_left -= size
        self.send(FILE, json.dumps({"path": path, "size": size}).encode())
        while size:
            data = os.read(file, min(PIECE, size))
            if not data:
                raise EOFError(path)
            size -= len(data)
            self.send(DATA, binascii.b2a_base64(data, newline=False))


@contextlib.contextmanager
def opened(name, directory, flags):
    """Open an entry of a directory, and close its descriptor at the end."""
    file = os.open(name, OPEN | flags, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


def expand(patterns):
    """Return the patterns, and each of them without its leading `**`, because `**` can match zero directories."""
    found = set()
    for parts in patterns:
        found.add(parts)
        while parts[0] == "**":
            parts = parts[1:]
            found.add(parts)
    return found


def descend(parts, name):
    """Return what remains of a pattern inside the directory `name`, as a list; empty if it does not match."""
    if parts[0] == "**":
        return [] if name.startswith(".") else [parts]
    return [parts[1:]] if len(parts) > 1 and matches(parts[0], name) else []


def matches(part, name):
    """Match a name as a shell does: wildcards do not match a dot at the beginning of a name."""
    if not has_wildcard(part):
        return part == name
    return part != "**" and part.startswith(".") == name.startswith(".") and bool(compiled(part)(name))


def has_wildcard(part):
    return any(sign in part for sign in "*?[")


@functools.cache
def compiled(part):
    return re.compile(fnmatch.translate(part)).match
