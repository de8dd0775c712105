"""The first process of a setup container: reports its Python, and keeps the container alive during the setup.

The text of this file is the container's program (`python3 -I -S -c`). It must run in any Python 3, with only the
standard library. Its argument is the number of seconds after which the container ends in any case. A byte on its
standard input means: list what the setup left in its home, delete the tools, and end. The end of the input means: the
server is gone, end.

docs/design/user-and-home.md describes what happens to the home."""

import json
import os
import shutil
import signal
import stat
import sys
import time

TOOLS = "/.pyexec"
"""The directory of the installer and its files during the setup."""
HOME = "/root"
SETUP_LIST = TOOLS + "/home.json"
"""The list of paths that the setup left in its home, for the supervisor (see home.py). It stays in the image."""
HIDDEN = (".cache/pip", ".cache/uv")
"""Caches of installers, which no program needs."""
PATHS_MAX = 1000
DEPTH_MAX = 64
CLOCK_REALTIME_COARSE = 5
"""The clock of the times of files. It is a few milliseconds behind the usual clock."""


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reap orphaned processes of the setup
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(int(sys.argv[1]))
    started = time.clock_gettime(CLOCK_REALTIME_COARSE)
    facts = {"python": list(sys.version_info[:3]), "executable": sys.executable}
    os.write(1, json.dumps(facts).encode() + b"\n")
    if os.read(0, 1):
        paths = set(read_list()).union(make_readable(HOME, started))
        shutil.rmtree(TOOLS)
        if paths:
            write_list(sorted(paths)[:PATHS_MAX])


def make_readable(home, since):
    """Make everything new in `home` readable for every user. Return the relative paths of what is new."""
    paths = [path for name in names_in(home) for path in find_new(home, name, since, 1)]
    for folder in {os.path.dirname(path) for path in paths}:
        while folder:
            add_mode(os.path.join(home, folder), 0o111)
            folder = os.path.dirname(folder)
    if paths:
        add_mode(home, 0o111)
    return paths


def find_new(home, path, since, depth):
    """Return the new paths at `path` and below it. A directory in which everything is new counts as one.

    The setup's own processes may still run, so files can vanish meanwhile."""
    full = os.path.join(home, path)
    try:
        info = os.lstat(full)
    except OSError:
        return []
    is_new = info.st_ctime >= since and path not in HIDDEN
    if stat.S_ISLNK(info.st_mode):
        return [path] if is_new else []
    if is_new:
        execute = 0o111 if info.st_mode & 0o111 else 0
        add_mode(full, 0o444 | execute)
    if not stat.S_ISDIR(info.st_mode):
        return [path] if is_new and stat.S_ISREG(info.st_mode) else []
    names = names_in(full) if depth < DEPTH_MAX and path not in HIDDEN else []
    found = []
    for name in names:
        child = os.path.join(path, name)
        below = find_new(home, child, since, depth + 1)
        is_new = is_new and below == [child]
        found += below
    return [path] if is_new or len(found) > PATHS_MAX else found


def names_in(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def add_mode(path, mode):
    """Add permissions. An existing file of a lower layer is copied, so do nothing if it has them."""
    try:
        present = os.stat(path).st_mode
        if present & mode != mode:
            os.chmod(path, stat.S_IMODE(present) | mode)
    except OSError:
        pass


def read_list():
    """Return the list of the image, if it is itself the result of a setup."""
    try:
        with open(SETUP_LIST) as file:
            return [path for path in json.load(file) if isinstance(path, str)]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def write_list(paths):
    os.mkdir(TOOLS, 0o755)
    with open(SETUP_LIST, "w") as file:
        json.dump(paths, file)


if __name__ == "__main__":
    main()
