"""Read one file out of an archive, or out of the beginning of one, in memory."""

import io
import posixpath
import tarfile

LINKS_FOLLOWED_MAX = 40
_MALFORMED = (ValueError, OverflowError, LookupError)


def read_member(archive: bytes, name: str) -> bytes | None:
    """Return the content of a file; None if the archive has no such file. Links to files are followed.

    `name` is normalized. If the archive is cut off, so may be the content. A later file of the same name counts."""
    members = _members(archive)
    for _ in range(LINKS_FOLLOWED_MAX):
        member = members.get(name)
        if member is None:
            return None
        if member.isreg() and not member.issparse():
            return archive[member.offset_data : member.offset_data + member.size]
        if not member.issym() and not member.islnk():
            return None
        folder = posixpath.dirname(name) if member.issym() else ""
        name = posixpath.normpath(posixpath.join(folder, member.linkname))
    return None


def _members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                members[posixpath.normpath(member.name)] = member
    except (tarfile.TarError, *_MALFORMED):  # the archive is cut off, or has headers that only tarfile reads
        return members
    return members
