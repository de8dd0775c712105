"""Parse a requirements.txt as pip does ("Requirements File Format" in its documentation), and write it again so that
the installer, uv, does the same: uv ignores some of pip's options and reads others differently."""

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache

from attrs import Factory, define, frozen
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pyexec.domain.requirement_lines import (
    FIELD,
    LINE_LENGTH_MAX,
    PACKAGE_OPTIONS,
    invalid_line,
    logical_lines,
    next_option,
    untrusted_host,
)
from pyexec.errors import InvalidRequest, shorten

TEXT_LENGTH_MAX = 2 * 1024 * 1024
LINES_MAX = 5000
SPECIFIERS_LENGTH_MAX = 256 * 1024
"""Maximum length of all requirements without their hashes. Parsing them takes 1.5 s for a mebibyte."""

_FILE_OPTIONS = frozenset({"--requirement", "--constraint"})
_PAGES = frozenset({"--index-url", "--extra-index-url", "--find-links"})
_HASH_NAMES = ("sha256", "sha384", "sha512")
"""Algorithms that pip accepts in --hash."""
_VERSION = re.compile(r"v?[0-9][0-9a-z.]{0,30}", re.ASCII)
_HASH = re.compile(r"\s--hash[= ](\S+)")
_OPTION_BEHIND = re.compile(r"\s(--?[a-zA-Z][\w-]*)")
_HASH_IN_URL = re.compile(rf"[#&](?:{'|'.join(_HASH_NAMES)})=[0-9a-fA-F]")
_URL = re.compile(r"(?:git\+|hg\+|svn\+|bzr\+)?(?:https?|ssh|git)://\S+", re.IGNORECASE)
_WEB = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)


@frozen(kw_only=True)
class Requirements:
    """The packages that `text` names.

    `pinned`: every line names an exact version, and no other file is included. `own_index`: it names its own package
    index. `lines` are its requirements and options as the installer reads them, and `options` those that the installer
    accepts only on its command line."""

    text: str
    pinned: bool
    own_index: bool
    lines: tuple[str, ...]
    options: tuple[str, ...]

    @property
    def file_text(self) -> str:
        """The requirements file for the installer."""
        return "".join(f"{line}\n" for line in self.lines)


@define
class _Reader:
    """Collects the lines of a file."""

    pinned: bool = True
    index_url: str | None = None
    extra_index: bool = False
    pre: bool = False
    require_hashes: bool = False
    trusted_hosts: list[str] = Factory(list)
    pages: list[tuple[int, str, str]] = Factory(list)
    """The URLs of indexes and of pages with links, each with the number and the text of its line."""
    options: list[str] = Factory(list)
    files: list[str] = Factory(list)
    packages: list[str] = Factory(list)
    specifiers_length: int = 0
    first_hash_line: int | None = None
    without_hash: tuple[int, str, str] | None = None
    """The first line that hash-checking mode rejects: its number, its text, and what it lacks."""
    no_binary: dict[str, None] = Factory(dict)
    only_binary: dict[str, None] = Factory(dict)

    def add_options(self, number: int, line: str) -> None:
        """Read a line of options; raise `InvalidRequest` for an option that is not supported."""
        if len(line) > LINE_LENGTH_MAX:
            raise invalid_line(number, line, f"the line is longer than {LINE_LENGTH_MAX} characters")
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise invalid_line(number, line, str(error)) from error
        while words:
            name, value = next_option(words, lambda reason: invalid_line(number, line, reason))
            if name in _FILE_OPTIONS | {"--find-links"} and _WEB.fullmatch(value) is None:
                kind = "directory" if name == "--find-links" else "file"
                raise invalid_line(
                    number, line, f"a local {kind} is not available in the setup; use an https:// URL"
                )
            if name in _PAGES:
                self.pages.append((number, line, value))
            self._add_option(name, value)

    def _add_option(self, name: str, value: str) -> None:
        match name:
            case "--pre":
                self.pre = True
            case "--require-hashes":
                self.require_hashes = True
            case "--trusted-host":
                self.trusted_hosts.append(value)
            case "--index-url":
                self.index_url = value
            case "--no-binary":
                _add_names(value, self.no_binary, self.only_binary)
            case "--only-binary":
                _add_names(value, self.only_binary, self.no_binary)
            case "--requirement" | "--constraint":
                self.pinned = False
                self.files.append(f"{name} {value}")
            case _:
                self.extra_index |= name == "--extra-index-url"
                self.options.append(f"{name} {value}".rstrip())

    def add_requirement(self, number: int, line: str) -> None:
        """Read a line that names a package; raise `InvalidRequest` if it is not a requirement."""
        hashes = _HASH.findall(line)
        for value in hashes:
            algorithm, _, digest = value.partition(":")
            if algorithm not in _HASH_NAMES or not digest:
                raise invalid_line(
                    number, line, f"--hash must be one of {', '.join(_HASH_NAMES)} and a digest"
                )
        plain = _HASH.sub("", line).strip()
        if len(plain) > LINE_LENGTH_MAX:
            raise invalid_line(number, line, f"the line is longer than {LINE_LENGTH_MAX} characters")
        self.specifiers_length += len(plain)
        if self.specifiers_length > SPECIFIERS_LENGTH_MAX:
            raise invalid_line(
                number,
                line,
                f"the requirements have more than {SPECIFIERS_LENGTH_MAX} characters without hashes",
            )
        try:
            requirement = parse_requirement(plain)
        except ValueError as error:
            raise invalid_line(number, line, str(error)) from error
        self.pinned &= _is_pinned(requirement)
        self.packages.append(" ".join([plain, *(f"--hash={value}" for value in hashes)]))
        if hashes and self.first_hash_line is None:
            self.first_hash_line = number
        lacks = _lacks_for_hash_checking(requirement, plain, has_hashes=bool(hashes))
        if lacks and self.without_hash is None:
            self.without_hash = number, line, lacks

    def requirements(self, text: str) -> Requirements | None:
        """Return what was read; None if it installs nothing."""
        trusted = {host.lower() for host in self.trusted_hosts}
        for number, line, url in self.pages:
            if host := untrusted_host(url, trusted):
                reason = f"an index over http:// is not secure; use https://, or add --trusted-host {shorten(host)}"
                raise invalid_line(number, line, reason)
        checks_hashes = self.require_hashes or self.first_hash_line is not None
        if checks_hashes and self.without_hash is not None:
            number, line, lacks = self.without_hash
            reason = (
                "of --require-hashes"
                if self.first_hash_line is None
                else f"line {self.first_hash_line} has a --hash"
            )
            raise invalid_line(number, line, f"every package needs {lacks}, because {reason}")
        if not self.packages and not any(file.startswith("--requirement") for file in self.files):
            return None
        index = [] if self.index_url is None else [f"--index-url {self.index_url}"]
        formats = [f"--no-binary {name}" for name in self.no_binary]
        formats += [f"--only-binary {name}" for name in self.only_binary]
        return Requirements(
            text=text,
            pinned=self.pinned,
            own_index=self.index_url is not None,
            lines=(*index, *self.options, *formats, *self.files, *self.packages),
            options=tuple(self._command_line(checks_hashes)),
        )

    def _command_line(self, checks_hashes: bool) -> Iterator[str]:
        if self.pre:
            yield "--prerelease=allow"
        if checks_hashes:
            yield "--require-hashes"
        if self.extra_index:
            # pip takes the best version of all indexes, uv by default that of the first index with the package.
            yield "--index-strategy=unsafe-best-match"
        for host in self.trusted_hosts:
            yield f"--allow-insecure-host={host}"


@lru_cache(maxsize=8)
def parse_requirements(text: str) -> Requirements | None:
    """Return the requirements in `text`; None if it names no package.

    Raise `InvalidRequest` with the line's number if a line is malformed or cannot work in a sandbox. Large texts take
    a tenth of a second, and several steps of one request need the result, so it is cached."""
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        raise InvalidRequest(
            "requirements_txt contains a NUL character; decode the file (it may be UTF-16) before sending it",
            field=FIELD,
        )
    if len(text) > TEXT_LENGTH_MAX:
        raise InvalidRequest(
            f"requirements_txt has {len(text)} characters; at most {TEXT_LENGTH_MAX} are allowed", field=FIELD
        )
    reader = _Reader()
    for count, (number, line) in enumerate(logical_lines(text), start=1):
        if count > LINES_MAX:
            raise InvalidRequest(
                f"requirements_txt has more than {LINES_MAX} requirements and options", field=FIELD
            )
        if line.startswith("-"):
            reader.add_options(number, line)
        else:
            reader.add_requirement(number, line)
    return reader.requirements(text)


def _add_names(value: str, names: dict[str, None], others: dict[str, None]) -> None:
    """Add packages to the formats of one kind, and remove them from those of the other kind, as pip does."""
    new = value.split(",")
    while ":all:" in new:
        others.clear()
        names.clear()
        names[":all:"] = None
        del new[: new.index(":all:") + 1]
        if ":none:" not in new:
            return
    for name in filter(None, new):
        if name == ":none:":
            names.clear()
            continue
        others.pop(canonicalize_name(name), None)
        names[canonicalize_name(name)] = None


def parse_requirement(text: str) -> Requirement | None:
    """Return a requirement, None for a plain URL; raise `ValueError` with the reason if it is neither."""
    if _URL.fullmatch(text.split(" ;")[0].split("#")[0].strip()):
        return None
    if text.startswith((".", "/", "~", "file:")) or (
        text.endswith((".whl", ".tar.gz", ".zip")) and "@" not in text
    ):
        raise ValueError("a local path is not available in the setup; name a package or a URL")
    try:
        requirement = Requirement(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (InvalidRequirement, ValueError) as error:
        if option := _OPTION_BEHIND.search(text):
            if option[1] in PACKAGE_OPTIONS:
                raise ValueError(f"{option[1]} is not supported") from error
            raise ValueError(
                f"{option[1]} follows a package; write the option on a line of its own"
            ) from error
        raise ValueError(str(error).split("\n")[0][:200]) from error
    if requirement.url is not None and not _URL.match(requirement.url):
        if _VERSION.fullmatch(requirement.url):
            version = f"{requirement.name}=={requirement.url}"
            raise ValueError(f"a URL must follow @; to select a version, write {version}")
        raise ValueError("a local path is not available in the setup; use an https:// URL")
    return requirement


def _is_pinned(requirement: Requirement | None) -> bool:
    if requirement is None or requirement.url is not None:
        return False
    return any(s.operator in ("==", "===") and "*" not in s.version for s in requirement.specifier)


def _lacks_for_hash_checking(requirement: Requirement | None, plain: str, *, has_hashes: bool) -> str | None:
    """Return what pip's hash-checking mode requires and the line does not have.

    A line with a marker may not apply to the image's Python at all; the installer decides that."""
    if requirement is None or requirement.url is not None:
        return None if has_hashes or _HASH_IN_URL.search(plain) else "a --hash"
    if requirement.marker is not None:
        return None
    if not has_hashes:
        return "a --hash"
    specifiers = list(requirement.specifier)
    is_exact = len(specifiers) == 1 and specifiers[0].operator in ("==", "===")
    return None if is_exact else "an exact version (==)"
