"""The files that a run brings back: which ones a caller may ask for, and the check of those that come."""

import posixpath
import re
from collections.abc import Iterator, Sequence

from attrs import define, field, frozen

from pyexec.errors import InvalidRequest, SandboxBroken

ROOT = "work"
PATTERNS_MAX = 100
PATTERN_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no path that comes back may hold: control characters, line ends, and bytes that are not UTF-8."""


@frozen(kw_only=True)
class FileLimits:
    """How much a run may bring back: bytes of contents, files, bytes of all their paths together and of one path.

    The paths lie in the terminal event, which must fit into one step of the event log."""

    bytes_max: int
    files_max: int = 1000
    names_bytes_max: int = 32 * 1024
    path_bytes_max: int = 1024


@frozen(kw_only=True)
class OutputFile:
    """A file that came back."""

    path: str
    size: int


@frozen(kw_only=True)
class OutputFiles:
    """What a run brought back. Their contents, one after the other, are a blob; None when there are none.

    `truncated` says that something was left out, or may have been."""

    listed: tuple[OutputFile, ...] = ()
    truncated: bool = False
    blob: str | None = None


@define
class FileCheck:
    """What a sandbox says of files is hostile: feed it here first. Every lie raises `SandboxBroken`."""

    limits: FileLimits
    _files: list[OutputFile] = field(factory=list, init=False)
    _paths: set[str] = field(factory=set, init=False)
    _folders: set[str] = field(factory=set, init=False)
    _names_bytes: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _missing: int = field(default=0, init=False)

    def begin(self, path: str, size: int) -> None:
        """A file is announced."""
        if self._missing:
            raise SandboxBroken(f"{self._missing} bytes of {self._files[-1].path!r} did not come")
        _check_path(path, self.limits.path_bytes_max)
        folders = set(_folders_of(path))
        if path in self._paths or path in self._folders or folders & self._paths:
            raise SandboxBroken(f"the file {path!r} came twice, or as a folder, too")
        self._names_bytes += len(path.encode())
        self._bytes += size
        if (
            len(self._files) == self.limits.files_max
            or self._names_bytes > self.limits.names_bytes_max
            or self._bytes > self.limits.bytes_max
        ):
            raise SandboxBroken("more files came than were allowed")
        self._files.append(OutputFile(path=path, size=size))
        self._paths.add(path)
        self._folders |= folders
        self._missing = size

    def feed(self, data: bytes) -> None:
        """Bytes of the announced file come."""
        if len(data) > self._missing:
            raise SandboxBroken("more bytes of a file came than it has")
        self._missing -= len(data)

    @property
    def announced(self) -> int:
        """How many files have begun."""
        return len(self._files)

    def whole(self) -> tuple[OutputFile, ...]:
        """The files of which everything has come."""
        return tuple(self._files[:-1] if self._missing else self._files)


def normalize_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """`output_files` relative to /work and without detours; raises `InvalidRequest` for what leads elsewhere."""
    if len(patterns) > PATTERNS_MAX:
        raise InvalidRequest(
            f"output_files has {len(patterns)} patterns; allowed are {PATTERNS_MAX}", field="output_files"
        )
    return tuple(_normal_pattern(pattern, f"output_files[{at}]") for at, pattern in enumerate(patterns))


def _normal_pattern(pattern: str, where: str) -> str:
    if not pattern or "\0" in pattern:
        raise InvalidRequest(f"{pattern[:60]!r} is no pattern of files", field=where)
    if len(pattern.encode()) > PATTERN_BYTES_MAX:
        raise InvalidRequest(f"the pattern is longer than {PATTERN_BYTES_MAX} bytes", field=where)
    if ".." in pattern.split("/"):
        raise InvalidRequest(f"{pattern!r} has '..' in it; give a pattern below /work", field=where)
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if pattern.startswith("/"):
        if parts[:1] != [ROOT]:
            raise InvalidRequest(f"{pattern!r} lies outside /work; give a pattern below it", field=where)
        del parts[0]
    if pattern.endswith("/") or not parts:
        raise InvalidRequest(f"{pattern!r} names a directory; for all files in it append **", field=where)
    if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise InvalidRequest(f"a part of the pattern is longer than {COMPONENT_BYTES_MAX} bytes", field=where)
    if parts[-1] == "**":
        parts.append("*")
    return "/".join(part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ["**"])


def _check_path(path: str, bytes_max: int) -> None:
    normal = posixpath.normpath(path)
    if not path or path != normal or path.startswith("/") or normal.split("/")[0] in (".", ".."):
        raise SandboxBroken(f"a file came as {path[:80]!r}, which is no path below /work")
    if UNSAFE.search(path) or len(path.encode()) > bytes_max:
        raise SandboxBroken(f"a file came as {path[:80]!r}, which is no name to give on")


def _folders_of(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
