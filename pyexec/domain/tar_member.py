"""Read one file out of an archive, or out of the beginning of one, in memory."""

import io
import posixpath
import tarfile
from itertools import accumulate

LINKS_FOLLOWED_MAX = 40
_MALFORMED = (ValueError, OverflowError, LookupError)


def read_member(archive: bytes, name: str) -> bytes | None:
    """Return the content of a file; None if the archive has no such file. Links are followed, also to directories.

    `name` is normalized. If the archive is cut off, so may be the content. A later file of the same name counts."""
    members = _members(archive)
    for _ in range(LINKS_FOLLOWED_MAX):
        paths = accumulate(name.split("/"), "{}/{}".format)
        link = next((path for path in paths if path in members and members[path].issym()), None)
        if link is None:
            member = members.get(name)
            if member is None or not member.isreg() or member.issparse():
                return None
            return archive[member.offset_data : member.offset_data + member.size]
        target = posixpath.join(posixpath.dirname(link), members[link].linkname)
        name = posixpath.normpath(target + name[len(link) :])
    return None


def _members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    """Return the members by normalized name. A hard link counts as the file that its target is when it is made."""
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                target = posixpath.normpath(member.linkname) if member.islnk() else name
                members[name] = members.get(target, member) if member.islnk() else member
    except (tarfile.TarError, *_MALFORMED):  # the archive is cut off, or has headers that only tarfile reads
        return members
    return members
