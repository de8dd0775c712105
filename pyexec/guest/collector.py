"""Finds the files that a program has left and its caller has asked for, and sends them to the host.

This file travels into the container as text, with the go-ahead of a run that wants files: the standard library only,
of Python 3.8 and later. It runs in the supervisor once every process of the program is dead, so nothing changes
under it; but what lies there was made by the program, and may be meant to lead elsewhere or to keep it busy.
It opens nothing through a link, nothing but regular files, and stops at every bound."""

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
"""After so long nothing more is begun."""
ENTRIES_MAX = 100000
"""How many names are looked at where patterns have wildcards."""
DEPTH_MAX = 32
PIECE = 12000
"""Bytes of a file in one frame, for the reason that the supervisor has."""
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def collect(order, send):
    """Sends each file that `order["patterns"]` match: its name and size, then its contents; and at last whether one
    was left out. `send` takes a frame's kind and payload."""
    collection = Collection(order, send)
    patterns = [tuple(pattern.split("/")) for pattern in order["patterns"]]
    with opened(ROOT, None, os.O_DIRECTORY) as root:
        collection.walk(root, "", patterns, 1)
    send(COLLECTED, json.dumps({"truncated": collection.truncated}).encode())


class Collection:
    """What is still allowed, and whether something that was wanted had to be left out."""

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
        """Visits what the first parts of `patterns` match in an open directory whose path is `path`."""
        patterns = closure(patterns)
        for name in self.names(directory, patterns):
            wanted = any(len(parts) == 1 and matches(parts[0], name) for parts in patterns)
            deeper = [rest for parts in patterns for rest in descend(parts, name)]
            if not wanted and not deeper:
                continue
            if self.is_over():
                self.truncated = True
                return
            try:
                self.visit(directory, name, path + name, wanted, deeper, depth)
            except FileNotFoundError:
                continue
            except OSError:
                self.truncated = True

    def names(self, directory, patterns):
        """What to look at: exactly what is named where no pattern has a wildcard here, else all there is."""
        if not any(has_wildcard(parts[0]) for parts in patterns):
            return sorted({parts[0] for parts in patterns})
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self.entries_left -= 1
                if self.is_over():
                    self.truncated = True
                    break
                names.append(entry.name)
        return sorted(names)

    def is_over(self):
        return self.entries_left < 0 or not self.files_left or time.monotonic() > self.deadline

    def visit(self, directory, name, path, wanted, deeper, depth):
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode) and wanted:
            with opened(name, directory, 0) as file:
                self.take(file, path)
        elif stat.S_ISDIR(mode) and deeper:
            if depth == DEPTH_MAX:
                self.truncated = True
                return
            with opened(name, directory, os.O_DIRECTORY) as inner:
                self.walk(inner, path + "/", deeper, depth + 1)

    def take(self, file, path):
        """Sends a file, or leaves it out as a whole."""
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
    """An open file of a directory, as a descriptor."""
    file = os.open(name, OPEN | flags, dir_fd=directory)
    try:
        yield file
    finally:
        os.close(file)


def closure(patterns):
    """Patterns, and what is left of them where a leading `**` stands for no directory at all."""
    found = set()
    for parts in patterns:
        found.add(parts)
        while parts[0] == "**":
            parts = parts[1:]
            found.add(parts)
    return found


def descend(parts, name):
    """What is left of a pattern below the directory `name`, if it leads there."""
    if parts[0] == "**":
        return [] if name.startswith(".") else [parts]
    return [parts[1:]] if len(parts) > 1 and matches(parts[0], name) else []


def matches(part, name):
    """As in a shell: a name that begins with a dot is matched only by a part that does."""
    if not has_wildcard(part):
        return part == name
    return part != "**" and part.startswith(".") == name.startswith(".") and bool(compiled(part)(name))


def has_wildcard(part):
    return any(sign in part for sign in "*?[")


@functools.cache
def compiled(part):
    return re.compile(fnmatch.translate(part)).match
