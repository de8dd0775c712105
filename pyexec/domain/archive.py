"""The check of an uploaded tar as its bytes pass: what may be unpacked, and what to run.

Nothing is kept but the names' hashes and the symbolic links, so archives of any size take constant memory."""

import posixpath
import tarfile
from collections.abc import Iterator
from itertools import pairwise

from attrs import define, field, frozen

from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.tar_parser import REGULAR, Member, TarParser
from pyexec.errors import InvalidRequest, TooLarge

NAME_BYTES_MAX = 4095
COMPONENT_BYTES_MAX = 255

_LINKS = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
_FORBIDDEN = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}


@frozen(kw_only=True)
class ArchiveLimits:
    """How much an archive may hold: bytes once unpacked, and members."""

    bytes_max: int
    members_max: int


@define
class Candidates:
    """Candidates for the entrypoint, in the order that docs/api.md defines."""

    main: str | None = None
    dunder_main: str | None = None
    first_at_root: str | None = None
    first_anywhere: str | None = None

    def see(self, name: str) -> None:
        if not name.endswith(".py"):
            return
        self.first_anywhere = self.first_anywhere or name
        if "/" in name:
            return
        self.first_at_root = self.first_at_root or name
        if name == "main.py":
            self.main = name
        elif name == "__main__.py":
            self.dunder_main = name

    def best(self) -> str | None:
        return self.main or self.dunder_main or self.first_at_root or self.first_anywhere


@define
class ArchiveCheck:
    """Feed it the upload in chunks of any size, each before it is passed on, then `finish` it.

    Both raise `InvalidRequest` (or its kinds `UnsupportedArchive`, `TooLarge`) naming the member at fault."""

    limits: ArchiveLimits
    entrypoint: str | None = None
    """The file the caller named; None lets `finish` detect one."""

    unpacked_bytes: int = field(default=0, init=False)
    _stream: TarParser = field(factory=TarParser, init=False)
    _files: set[int] = field(factory=set, init=False)
    _folders: set[int] = field(factory=set, init=False)
    _symlinks: set[str] = field(factory=set, init=False)
    _candidates: Candidates = field(factory=Candidates, init=False)

    @property
    def members(self) -> int:
        """How many members have passed."""
        return self._stream.members

    def feed(self, chunk: bytes | memoryview) -> None:
        """Checks the members whose headers lie in the next bytes of the upload."""
        for member in self._stream.feed(chunk):
            self._check_member(member)

    def finish(self) -> str:
        """After the last byte: the entrypoint, as a normal path inside the archive."""
        if self._stream.empty:
            raise InvalidRequest("the tar part is empty; send an uncompressed tar", field="tar")
        if not self._stream.ended:
            raise InvalidRequest(
                "the archive is no tar, or cut short: it ends before its end-of-archive blocks", field="tar"
            )
        if self.members == 0:
            raise InvalidRequest("the archive holds no members", field="tar")
        if self.entrypoint is not None:
            return self._named_entrypoint(self.entrypoint)
        found = self._candidates.best()
        if found is None:
            raise InvalidRequest(
                "the archive holds no .py file to run; add main.py or name an entrypoint", field="entrypoint"
            )
        return found

    def _named_entrypoint(self, entrypoint: str) -> str:
        if hash(entrypoint) in self._files:
            return entrypoint
        if hash(entrypoint) in self._folders:
            raise InvalidRequest(f"entrypoint {entrypoint!r} is a directory; name a file", field="entrypoint")
        raise InvalidRequest(f"entrypoint {entrypoint!r} is not in the archive", field="entrypoint")

    def _check_member(self, member: Member) -> None:
        if self.members > self.limits.members_max:
            raise TooLarge(f"the archive holds more than {self.limits.members_max} members", field="tar")
        name = _normal_name(member.name)
        if member.kind in _FORBIDDEN:
            raise InvalidRequest(f"member {_shown(name)} is {_FORBIDDEN[member.kind]}", field="tar")
        self._check_parents(name)
        if member.kind in _LINKS:
            self._check_link(name, member)
        elif member.kind in REGULAR:
            self._count(name, member.size)
        elif member.kind != tarfile.DIRTYPE:
            raise InvalidRequest(f"member {_shown(name)} has the unknown type {member.kind!r}", field="tar")
        self._note_name(name, is_folder=member.kind == tarfile.DIRTYPE)

    def _check_parents(self, name: str) -> None:
        for parent in _parents(name):
            if parent in self._symlinks:
                raise InvalidRequest(
                    f"member {_shown(name)} lies behind the symbolic link {_shown(parent)}", field="tar"
                )
            if hash(parent) in self._files:
                raise InvalidRequest(
                    f"member {_shown(name)} lies below {_shown(parent)}, which is a file", field="tar"
                )
            self._folders.add(hash(parent))

    def _note_name(self, name: str, *, is_folder: bool) -> None:
        """A directory may come twice; all else may not, nor be a file here and a directory there."""
        if hash(name) in self._files:
            twice = "is a file, and a directory too" if is_folder else "is in the archive twice"
            raise InvalidRequest(f"member {_shown(name)} {twice}", field="tar")
        if not is_folder and hash(name) in self._folders:
            raise InvalidRequest(f"member {_shown(name)} is a directory, and a file too", field="tar")
        if not is_folder and name == ".":
            raise InvalidRequest("a member that is no directory is named '.'", field="tar")
        (self._folders if is_folder else self._files).add(hash(name))

    def _count(self, name: str, size: int) -> None:
        self._candidates.see(name)
        self.unpacked_bytes += size
        if self.unpacked_bytes > self.limits.bytes_max:
            most = self.limits.bytes_max // MEBIBYTE
            raise TooLarge(
                f"the archive's contents are larger than disk_mb allows ({most} MiB)", field="config.disk_mb"
            )

    def _check_link(self, name: str, member: Member) -> None:
        """A link must stay inside: a symbolic one counts from its directory, a hard one from the root."""
        try:
            target = member.target.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"the link {_shown(name)} has a target that is not UTF-8", field="tar"
            ) from error
        symbolic = member.kind == tarfile.SYMTYPE
        landing = posixpath.normpath(posixpath.join(posixpath.dirname(name) if symbolic else "", target))
        outside = landing.startswith("/") or landing.split("/")[0] == ".."
        if outside or not target or "\0" in target or _climbs_from_below(target):
            raise InvalidRequest(
                f"the {_LINKS[member.kind]} {_shown(name)} leads out of the archive, to {_shown(target)}",
                field="tar",
            )
        if symbolic:
            self._symlinks.add(name)
        elif hash(landing) not in self._files or landing in self._symlinks:
            raise InvalidRequest(
                f"the hard link {_shown(name)} names {_shown(target)}, which is no file that comes before it",
                field="tar",
            )


def _normal_name(raw: bytes) -> str:
    """The member's normal name; raises when it cannot be written, or would lie outside of /work."""
    if len(raw) > NAME_BYTES_MAX:
        raise InvalidRequest(
            f"a member's name is {len(raw)} bytes long, at most {NAME_BYTES_MAX}: {_shown(raw[:60])}…",
            field="tar",
        )
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"a member's name is not UTF-8: {_shown(raw)}", field="tar") from error
    parts = name.split("/")
    if not name or "\0" in name:
        raise InvalidRequest(f"a member's name cannot be written: {_shown(name)}", field="tar")
    if name.startswith("/"):
        raise InvalidRequest(f"member {_shown(name)} has an absolute name; use a relative one", field="tar")
    if ".." in parts:
        raise InvalidRequest(f"member {_shown(name)} has '..' in its name", field="tar")
    if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise InvalidRequest(
            f"a part of member {_shown(name[:60])}… is longer than {COMPONENT_BYTES_MAX} bytes", field="tar"
        )
    return posixpath.normpath(name)


def _climbs_from_below(target: str) -> bool:
    """Whether '..' follows a name. If that name is a link, the kernel climbs from where the link leads, which
    the text does not tell."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return any(first != ".." and second == ".." for first, second in pairwise(parts))


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


def _shown(name: str | bytes) -> str:
    return repr(name)[:200]
