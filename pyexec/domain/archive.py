"""Check an uploaded tar while its bytes arrive: it can be unpacked safely, and it has a file to run.

The check keeps hashes of all names, and the names of symbolic links, but no content. So its memory does not grow with
the size of the archive."""

import posixpath
import tarfile
from collections.abc import Iterator
from itertools import islice, pairwise

from attrs import define, field, frozen

from pyexec.domain.entrypoint import EntrypointCandidates
from pyexec.domain.spec import MEBIBYTE
from pyexec.domain.tar_parser import REGULAR, Member, TarParser
from pyexec.errors import InvalidRequest, TooLarge, quote

NAME_BYTES_MAX = 4095
COMPONENT_BYTES_MAX = 255
DEPTH_MAX = 128
"""Maximum number of directories above a member. The check remembers every directory, which costs memory and time."""
LINK_CHARS_MAX = 8 * 1024 * 1024
"""Maximum length of the names and targets of all symbolic links. The check remembers them."""
LINKS_FOLLOWED_MAX = 40
"""How many symbolic links the kernel follows in a path."""
LINK_CANDIDATES_MAX = 50
LINK_DEPTH_MAX = 32
"""How many symbolic links are resolved to find an entrypoint, and how deep their targets may lie."""

_LINKS = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
_FORBIDDEN = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}


@frozen(kw_only=True)
class ArchiveLimits:
    """The limits of an archive: total size of its unpacked files in bytes, and number of members."""

    bytes_max: int
    members_max: int


@frozen
class Symlink:
    """A symbolic link of the archive: the normalized path that it points to, and its number among the members.

    A link to a directory only has a target that ends with a slash."""

    landing: str
    position: int
    to_directory: bool


@define
class ArchiveCheck:
    """Checks an archive. Call `feed` with each chunk of the upload before passing it on, then `finish`.

    Both raise `InvalidRequest` (or its subclasses `UnsupportedArchive` and `TooLarge`) and name the member at fault."""

    limits: ArchiveLimits
    entrypoint: str | None = None
    """The file that the caller named; None lets `finish` detect one."""

    unpacked_bytes: int = field(default=0, init=False)
    _parser: TarParser = field(factory=TarParser, init=False)
    _files: set[int] = field(factory=set, init=False)
    _folders: set[int] = field(factory=set, init=False)
    _symlinks: dict[str, Symlink] = field(factory=dict, init=False)
    _link_chars: int = field(default=0, init=False)
    _candidates: EntrypointCandidates = field(factory=EntrypointCandidates, init=False)
    _found: str | None = field(default=None, init=False)

    @property
    def members(self) -> int:
        """The number of members so far."""
        return self._parser.members

    def feed(self, chunk: bytes | memoryview) -> None:
        """Check the members whose headers are in the next chunk of the upload."""
        for member in self._parser.feed(chunk):
            self._check_member(member)

    def check_complete(self) -> None:
        """Check that the archive has arrived to its end. Call it after the last chunk."""
        if self._parser.empty:
            raise InvalidRequest("the archive is empty; send an uncompressed tar", field="tar")
        if not self._parser.ended:
            raise InvalidRequest(
                "the upload is not a tar archive or is cut short: its end-of-archive blocks are missing",
                field="tar",
            )

    def finish(self) -> str:
        """Check that the archive is complete; return the entrypoint as a normalized path inside the archive."""
        self.check_complete()
        if self.members == 0:
            raise InvalidRequest("the archive contains no files", field="tar")
        if self.entrypoint is not None:
            return self._named_entrypoint(self.entrypoint)
        if self._found is None:
            self._found = self._detected_entrypoint()
        if self._found is None:
            raise InvalidRequest(
                "the archive has no .py file to run; add main.py or name an entrypoint", field="entrypoint"
            )
        return self._found

    def _detected_entrypoint(self) -> str | None:
        """Return the best candidate. A symbolic link is one if it leads to a file of the archive."""
        links = (
            (name, link.position)
            for name, link in self._symlinks.items()
            if self._candidates.improves(name, link.position)
        )
        for name, position in islice(links, LINK_CANDIDATES_MAX):
            if self._leads_to_file(name):
                self._candidates.add(name, position)
        return self._candidates.best()

    def _leads_to_file(self, path: str) -> bool:
        """Return True if a path leads to a regular file of the archive, directly or through symbolic links."""
        for _ in range(LINKS_FOLLOWED_MAX):
            if path.count("/") > LINK_DEPTH_MAX or len(path) > NAME_BYTES_MAX:
                return False
            name = next((part for part in (path, *_parents(path)) if part in self._symlinks), None)
            if name is None:
                return hash(path) in self._files
            if name == path and self._symlinks[name].to_directory:
                return False
            path = posixpath.normpath(self._symlinks[name].landing + path[len(name) :])
        return False

    def _named_entrypoint(self, entrypoint: str) -> str:
        is_link = entrypoint in self._symlinks
        if (hash(entrypoint) in self._files and not is_link) or self._leads_to_file(entrypoint):
            return entrypoint
        if is_link:
            raise InvalidRequest(
                f"entrypoint {quote(entrypoint)} is a link that leads to no file of the archive",
                field="entrypoint",
            )
        if hash(entrypoint) in self._folders:
            raise InvalidRequest(
                f"entrypoint {quote(entrypoint)} is a directory; name a file", field="entrypoint"
            )
        raise InvalidRequest(f"entrypoint {quote(entrypoint)} is not in the archive", field="entrypoint")

    def _check_member(self, member: Member) -> None:
        if self.members > self.limits.members_max:
            raise TooLarge(f"the archive has more than {self.limits.members_max} members", field="tar")
        name = _normalize_name(member.name)
        if member.kind in _FORBIDDEN:
            raise InvalidRequest(f"member {quote(name)} is {_FORBIDDEN[member.kind]}", field="tar")
        if member.kind != tarfile.DIRTYPE and member.name.rstrip(b"/").endswith(b"/."):
            raise InvalidRequest(
                f"member {quote(name)} is not a directory, but its name ends with '/.'", field="tar"
            )
        self._check_parents(name)
        if member.kind in _LINKS:
            self._check_link(name, member)
        elif member.kind in REGULAR:
            self._add_size(member.size)
        elif member.kind != tarfile.DIRTYPE:
            raise InvalidRequest(f"member {quote(name)} has the unknown type {member.kind!r}", field="tar")
        self._add_name(name, member.kind)

    def _check_parents(self, name: str) -> None:
        for parent in _parents(name):
            if hash(parent) in self._folders:
                return  # it and all directories above it have passed before
            if parent in self._symlinks:
                raise InvalidRequest(
                    f"the path of member {quote(name)} leads through the symbolic link {quote(parent)}",
                    field="tar",
                )
            if hash(parent) in self._files:
                raise InvalidRequest(
                    f"member {quote(name)} is below {quote(parent)}, which is a file", field="tar"
                )
            self._add_folder(parent)

    def _add_folder(self, name: str) -> None:
        self._candidates.add_folder(name)
        self._folders.add(hash(name))
        folders_max = max(self.limits.members_max, DEPTH_MAX)
        if len(self._folders) > folders_max:
            raise TooLarge(f"the archive has more than {folders_max} directories", field="tar")

    def _add_name(self, name: str, kind: bytes) -> None:
        """Remember a name. A later member replaces an earlier one of the same name and kind, as in `tar -r`."""
        if kind == tarfile.DIRTYPE:
            if hash(name) in self._files:
                raise InvalidRequest(f"member {quote(name)} is both a file and a directory", field="tar")
            self._add_folder(name)
            return
        if name == ".":
            raise InvalidRequest("the member '.' is not a directory", field="tar")
        if hash(name) in self._folders:
            raise InvalidRequest(f"member {quote(name)} is both a directory and a file", field="tar")
        if kind != tarfile.SYMTYPE:
            if name in self._symlinks:
                raise InvalidRequest(f"member {quote(name)} is both a symbolic link and a file", field="tar")
            self._candidates.add(name, self.members)
        self._files.add(hash(name))

    def _add_size(self, size: int) -> None:
        self.unpacked_bytes += size
        if self.unpacked_bytes > self.limits.bytes_max:
            limit_mb = self.limits.bytes_max // MEBIBYTE
            raise TooLarge(
                f"the unpacked archive is larger than disk_mb allows ({limit_mb} MiB)", field="config.disk_mb"
            )

    def _check_link(self, name: str, member: Member) -> None:
        """Check that a link stays inside the archive.

        The target of a symbolic link is relative to the link's directory, that of a hard link to the archive's root."""
        try:
            target = member.target.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the target of the link {quote(name)} is not UTF-8", field="tar") from error
        if len(member.target) > NAME_BYTES_MAX:
            raise InvalidRequest(
                f"the target of the link {quote(name)} is {len(member.target)} bytes long, at most "
                f"{NAME_BYTES_MAX} are allowed",
                field="tar",
            )
        symbolic, to_directory = member.kind == tarfile.SYMTYPE, target.endswith(("/", "/."))
        landing = posixpath.normpath(posixpath.join(posixpath.dirname(name) if symbolic else "", target))
        outside = landing.startswith("/") or landing.split("/")[0] == ".."
        if outside or not target or "\0" in target or _climbs_from_below(target):
            raise InvalidRequest(
                f"the {_LINKS[member.kind]} {quote(name)} points outside the archive, to {quote(target)}",
                field="tar",
            )
        if symbolic:
            if hash(name) in self._files and name not in self._symlinks:
                raise InvalidRequest(f"member {quote(name)} is both a file and a symbolic link", field="tar")
            self._symlinks[name] = Symlink(landing, self.members, to_directory)
            self._link_chars += len(name) + len(landing)
            if self._link_chars > LINK_CHARS_MAX:
                raise TooLarge(
                    f"the symbolic links of the archive and their targets have more than {LINK_CHARS_MAX} characters",
                    field="tar",
                )
        elif landing == name:
            raise InvalidRequest(f"the hard link {quote(name)} points to itself", field="tar")
        elif hash(landing) not in self._files or landing in self._symlinks or to_directory:
            raise InvalidRequest(
                f"the hard link {quote(name)} points to {quote(target)}, which is not a file earlier in the archive",
                field="tar",
            )


def _normalize_name(raw: bytes) -> str:
    """Return a member's normalized name; raise if the name is invalid or points outside /work."""
    if len(raw) > NAME_BYTES_MAX:
        raise InvalidRequest(
            f"the name of a member is {len(raw)} bytes long, at most {NAME_BYTES_MAX} are allowed: "
            f"{quote(raw)}",
            field="tar",
        )
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the name of a member is not UTF-8: {quote(raw)}", field="tar") from error
    parts = name.split("/")
    if not name or "\0" in name:
        raise InvalidRequest(
            f"the name of a member is empty or contains a NUL character: {quote(name)}", field="tar"
        )
    if name.startswith("/"):
        raise InvalidRequest(f"member {quote(name)} has an absolute path; use a relative path", field="tar")
    if ".." in parts:
        raise InvalidRequest(f"member {quote(name)} has '..' in its path; use a path without it", field="tar")
    if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise InvalidRequest(
            f"a file or directory name in member {quote(name)} is longer than {COMPONENT_BYTES_MAX} bytes",
            field="tar",
        )
    name = posixpath.normpath(name)
    if name.count("/") > DEPTH_MAX:
        raise InvalidRequest(f"member {quote(name)} is below more than {DEPTH_MAX} directories", field="tar")
    return name


def _climbs_from_below(target: str) -> bool:
    """Return True if '..' follows a name in `target`.

    If that name is a link, '..' is the parent of the link's target, which a check of the text cannot know."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return any(first != ".." and second == ".." for first, second in pairwise(parts))


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name
