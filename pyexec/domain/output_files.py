"""The output files of a run: the patterns that a caller may use, and the check of what a sandbox sends."""

import posixpath
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum

from attrs import define, field, frozen

from pyexec.errors import InvalidRequest, SandboxBroken, quote

WORK_DIR = "work"
PATTERNS_MAX = 100
PATTERN_BYTES_MAX = 1024
COMPONENT_BYTES_MAX = 255
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that no path of an output file may contain: control characters, line ends, bytes that are not UTF-8."""


@frozen(kw_only=True)
class FileLimits:
    """The limits of a run's output files: bytes of all contents, number of files, bytes of all paths and of one path,
    number of skipped paths and bytes of all of them.

    The terminal event contains the paths, and must fit into one append to the event log."""

    bytes_max: int
    files_max: int = 1000
    names_bytes_max: int = 32 * 1024
    path_bytes_max: int = 1024
    skipped_max: int = 100
    skipped_bytes_max: int = 8 * 1024


class SkipReason(StrEnum):
    """Reasons for which a file, or files of a pattern, are missing from the output files (docs/api.md)."""

    NO_MATCH = "no_match"
    NOT_A_FILE = "not_a_file"
    LINK_OUTSIDE = "link_outside"
    LINK_BROKEN = "link_broken"
    LINK_LOOP = "link_loop"
    SETUP_FILE = "setup_file"
    INVALID_NAME = "invalid_name"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    TOO_DEEP = "too_deep"
    TIMEOUT = "timeout"
    UNREADABLE = "unreadable"
    NOT_COLLECTED = "not_collected"


@frozen(kw_only=True)
class OutputFile:
    """An output file."""

    path: str
    size: int


@frozen(kw_only=True)
class SkippedPath:
    """A file, directory or link below /work that was not returned. Its path is for people: it may be cut."""

    path: str
    reason: SkipReason


@frozen(kw_only=True)
class SkippedPattern:
    """A pattern for which no file, or not every file, was found. `number` is its index in the spec's `output_files`.

    The terminal event has no room for the pattern itself."""

    number: int
    reason: SkipReason


@frozen(kw_only=True)
class OutputFiles:
    """The output files of a run. The blob contains their contents, one after the other; it is None if there is nothing
    to store.

    `truncated` is true if files are missing, or may be missing, because of a limit or an error. `skipped_truncated` is
    true if more paths were skipped than `skipped_paths` contains."""

    listed: tuple[OutputFile, ...] = ()
    truncated: bool = False
    blob: str | None = None
    skipped_paths: tuple[SkippedPath, ...] = ()
    skipped_patterns: tuple[SkippedPattern, ...] = ()
    skipped_truncated: bool = False


def missing_files(patterns: int, reason: SkipReason = SkipReason.NOT_COLLECTED) -> OutputFiles:
    """Return the output files of a run if none were received for any of its patterns."""
    skipped = tuple(SkippedPattern(number=number, reason=reason) for number in range(patterns))
    return OutputFiles(truncated=True, skipped_patterns=skipped)


@define
class FileCheck:
    """Checks what a sandbox sends as output files, which is untrusted. Raises `SandboxBroken` for invalid data."""

    limits: FileLimits
    skipped: list[SkippedPath] = field(factory=list, init=False)
    _files: list[OutputFile] = field(factory=list, init=False)
    _paths: set[str] = field(factory=set, init=False)
    _folders: set[str] = field(factory=set, init=False)
    _names_bytes: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _missing: int = field(default=0, init=False)
    _skipped_bytes: int = field(default=0, init=False)

    def begin(self, path: str, size: int) -> None:
        """Check the announcement of the next file."""
        self._check_no_bytes_missing()
        _check_path(path, self.limits.path_bytes_max)
        folders = set(_folders_of(path))
        if path in self._paths or path in self._folders or folders & self._paths:
            raise SandboxBroken(f"the output file {quote(path)} was sent twice, or is a directory, too")
        self._names_bytes += len(path.encode())
        self._bytes += size
        if (
            len(self._files) == self.limits.files_max
            or self._names_bytes > self.limits.names_bytes_max
            or self._bytes > self.limits.bytes_max
        ):
            raise SandboxBroken("the output files exceed their limits")
        self._files.append(OutputFile(path=path, size=size))
        self._paths.add(path)
        self._folders |= folders
        self._missing = size

    def feed(self, data: bytes) -> None:
        """Check the next bytes of the announced file."""
        if len(data) > self._missing:
            raise SandboxBroken("an output file is longer than announced")
        self._missing -= len(data)

    def skip(self, path: str, reason: SkipReason) -> None:
        """Check and record a path that is not sent."""
        self._check_no_bytes_missing()
        _check_path(path, self.limits.path_bytes_max)
        self._skipped_bytes += len(path.encode())
        if (
            len(self.skipped) == self.limits.skipped_max
            or self._skipped_bytes > self.limits.skipped_bytes_max
        ):
            raise SandboxBroken("the skipped paths exceed their limits")
        self.skipped.append(SkippedPath(path=path, reason=reason))

    def _check_no_bytes_missing(self) -> None:
        if self._missing:
            raise SandboxBroken(
                f"{self._missing} bytes of the output file {quote(self._files[-1].path)} are missing"
            )

    @property
    def announced(self) -> int:
        """The number of announced files."""
        return len(self._files)

    def complete(self) -> tuple[OutputFile, ...]:
        """Return the files that were received completely."""
        return tuple(self._files[:-1] if self._missing else self._files)


def normalize_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns of `output_files` in the form that the collector expects: relative to /work, with a slash at
    the end if they mean a directory; raise `InvalidRequest` for a pattern outside of /work."""
    if len(patterns) > PATTERNS_MAX:
        raise InvalidRequest(
            f"output_files has {len(patterns)} patterns; at most {PATTERNS_MAX} are allowed",
            field="output_files",
        )
    return tuple(normalize_pattern(pattern, f"output_files[{at}]") for at, pattern in enumerate(patterns))


def normalize_pattern(pattern: str, where: str, noun: str = "pattern") -> str:
    """Return one pattern in this form. An `InvalidRequest` is about the field `where`, and calls its value a `noun`."""
    if not pattern or "\0" in pattern:
        raise InvalidRequest(f"{quote(pattern)} is not a file {noun}", field=where)
    if len(pattern.encode()) > PATTERN_BYTES_MAX:
        raise InvalidRequest(f"the {noun} is longer than {PATTERN_BYTES_MAX} bytes", field=where)
    if ".." in pattern.split("/"):
        raise InvalidRequest(f"{quote(pattern)} contains '..'; use a {noun} below /work", field=where)
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if pattern.startswith("/"):
        if parts[:1] != [WORK_DIR]:
            raise InvalidRequest(f"{quote(pattern)} is outside /work; use a {noun} below /work", field=where)
        del parts[0]
    if any(len(part.encode()) > COMPONENT_BYTES_MAX for part in parts):
        raise InvalidRequest(
            f"a file or directory name in the {noun} is longer than {COMPONENT_BYTES_MAX} bytes", field=where
        )
    if pattern.endswith("/") or not parts:
        parts.append("")
    if parts[-1] == "**":
        parts.append("*")
    return "/".join(part for at, part in enumerate(parts) if part != "**" or parts[at - 1 : at] != ["**"])


def _check_path(path: str, bytes_max: int) -> None:
    normal = posixpath.normpath(path)
    if not path or path != normal or path.startswith("/") or normal.split("/")[0] in (".", ".."):
        raise SandboxBroken(f"the output file {quote(path)} is not below /work")
    if UNSAFE.search(path) or len(path.encode()) > bytes_max:
        raise SandboxBroken(f"the output file {quote(path)} has an unsafe or too long path")


def _folders_of(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path
