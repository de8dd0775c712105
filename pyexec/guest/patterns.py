"""Match names with the patterns of `output_files`, one directory level after the other.

Part of the collector, which travels into the container as text (see collector.py). A pattern is its number and its
parts. An empty part matches everything at any depth: `out/` is all that is in the directory `out`."""

import fnmatch
import functools
import re


def expand(patterns):
    """Return the patterns, and each of them without its leading `**`, because `**` can match zero directories."""
    found = set()
    for number, parts in patterns:
        found.add((number, parts))
        while parts[0] == "**":
            parts = parts[1:]
            found.add((number, parts))
    return found


def select(patterns, name):
    """Match an entry of this name, and return three sets:

    - the numbers of the patterns that want the entry
    - the numbers of the patterns whose next part matches the name
    - the patterns that remain inside the entry if it is a directory

    An empty part matches everything at any depth. A pattern that ends with a name means the whole directory, too."""
    wanted, named, deeper = set(), set(), set()
    for number, parts in patterns:
        if parts[0] == "**":
            if not name.startswith("."):
                deeper.add((number, parts))
        elif matches(parts[0], name):
            named.add(number)
            if len(parts) > 1:
                deeper.add((number, parts[1:]))
            else:
                wanted.add(number)
                if not has_wildcard(parts[0]):
                    deeper.add((number, ("",)))
    return wanted, named, deeper


def matches(part, name):
    """Match a name as a shell does: wildcards do not match a dot at the beginning of a name."""
    if not has_wildcard(part):
        return part in ("", name)
    return part.startswith(".") == name.startswith(".") and bool(compiled(part)(name))


def is_name(part):
    return part != "" and not has_wildcard(part)


def has_wildcard(part):
    return any(sign in part for sign in "*?[")


@functools.lru_cache(None)
def compiled(part):
    return re.compile(fnmatch.translate(part)).match
