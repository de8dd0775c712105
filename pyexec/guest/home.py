"""Prepare the program's home and the place for packages that it installs. See docs/design/user-and-home.md.

Part of the supervisor (see bootstrap.py)."""

import collections
import itertools
import json
import os
import site
import stat

from pyexec.guest.wire import TMP, WORK

USER = "sandbox"
SETUP_HOME = "/root"
SETUP_LIST = "/.pyexec/home.json"
"""The paths that the setup of this image left in its home (see setup_init.py)."""
LIST_BYTES_MAX = 1024 * 1024
ENTRIES_MAX = 1000
SHARE = 4
"""The entries in /work may use this part of its free space and inodes: 1 / SHARE."""


def user_base():
    """Return the directory of packages that the program installs: ~/.local if it exists."""
    own = WORK + "/.local"
    return own if os.path.isdir(own) else TMP + "/.local"


def create_user_site():
    """Create the directory of these packages. An interpreter looks for it only once, when it starts."""
    site.USER_BASE, site.USER_SITE = user_base(), None
    try:
        os.makedirs(site.getusersitepackages(), exist_ok=True)
    except OSError:
        pass  # the archive has a file there, or fills the disk


def link_setup_home(home=WORK, setup_home=SETUP_HOME, setup_list=SETUP_LIST):
    """Recreate in `home` what the setup left in its own home. What exists in `home` stays.

    The list and the files can be hostile: the setup ran the caller's code."""
    paths = read_list(setup_list)
    if not paths:
        return
    try:
        file_system = os.statvfs(home)
        left = min(ENTRIES_MAX, file_system.f_ffree // SHARE, file_system.f_bfree // SHARE)
        chosen = [path for path in paths[:left] if create_parents(home, path)]
        mirror([(setup_home + "/" + path, home + "/" + path) for path in chosen], left - len(chosen))
    except (OSError, ValueError):
        pass  # the disk is full, or a name is too long or not encodable


def read_list(path):
    """Return the relative paths in a JSON file; none if the file is missing or invalid."""
    try:
        paths = json.loads(read_regular_file(path, LIST_BYTES_MAX) or b"[]")
    except (OSError, ValueError, RecursionError):
        return []
    return [path for path in paths if is_safe(path)] if isinstance(paths, list) else []


def is_safe(path):
    """Return True if this is a normalized path that stays below the directory that it is relative to."""
    if not isinstance(path, str) or "\0" in path or path[:1] in ("", "/"):
        return False
    return path == os.path.normpath(path) and path.split("/")[0] not in (".", "..")


def create_parents(folder, path):
    """Create the directories above `folder`/`path`. Return False if a link or a file is in the way."""
    parents = itertools.accumulate(path.split("/")[:-1], "{}/{}".format)
    return all(create_directory(folder + "/" + parent) for parent in parents)


def create_directory(path):
    """Create a directory if nothing has its name. Return False if something else than a directory has it."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    return True


def mirror(pairs, left):
    """Recreate each source at its target: directories as directories, everything else as a link to the source.

    After `left` entries, directories become links, too."""
    queue = collections.deque(pairs)
    while queue:
        source, target = queue.popleft()
        names = list_directory(source, left)
        if names is None:
            try:
                os.symlink(source, target)
            except FileExistsError:
                pass
        elif create_directory(target):
            left -= len(names)
            queue.extend((source + "/" + name, target + "/" + name) for name in names)


def list_directory(path, count_max):
    """Return the sorted names in a directory; None if it has more than `count_max`, or cannot be read."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in itertools.islice(entries, count_max + 1))
        finally:
            os.close(directory)
    except OSError:
        return None
    return names if len(names) <= count_max else None


def read_regular_file(path, size_max):
    """Return the content of a regular file; None if it is another kind of file, or larger."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > size_max:
            return None
        return os.read(fd, size_max)
    finally:
        os.close(fd)
