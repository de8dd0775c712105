"""Environments: an image plus a caller's commands and packages, and the requirements.txt that names the packages.

The format of requirements.txt is pip's ("Requirements File Format" in its documentation); a line follows PEP 508."""

import hashlib
import json
import re
from collections.abc import Iterator

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement

from pyexec.errors import InvalidRequest

REPOSITORY = "pyexec-env"
_FORMAT = 1
"""Part of every key. Increase it after a change of the setup, so that the server builds all environments again."""
FIELD = "requirements_txt"

_INDEX_OPTIONS = frozenset({"-i", "--index-url", "--pypi-url"})
_OPTIONS = _INDEX_OPTIONS | {
    "--extra-index-url",
    "-f",
    "--find-links",
    "--no-binary",
    "--only-binary",
    "--no-index",
    "--pre",
    "--prefer-binary",
    "--require-hashes",
    "--trusted-host",
}
_NO_PROJECT = "editable installs are not supported, because the setup has no project directory; remove {}"
_NO_FILE = "another file is not available in the setup; put its lines into requirements_txt"
_REJECTED_OPTIONS = {
    "-e": _NO_PROJECT.format("-e"),
    "--editable": _NO_PROJECT.format("--editable"),
    "-r": _NO_FILE,
    "--requirement": _NO_FILE,
    "-c": _NO_FILE,
    "--constraint": _NO_FILE,
}
_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash[= ]\S+")
_URL = re.compile(r"(?:git\+|hg\+|svn\+|bzr\+)?(?:https?|ssh|git)://\S+", re.IGNORECASE)


@frozen(kw_only=True)
class Recipe:
    """The steps that build an environment from an image: run `pre_commands` in order, then install the requirements."""

    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None

    @property
    def pinned(self) -> bool:
        """True if the recipe gives the same result at any time. The effect of commands is unknown."""
        requirements = parse_requirements(self.requirements_txt or "")
        return not self.pre_commands and (requirements is None or requirements.pinned)


def environment_key(base_id: str, recipe: Recipe) -> str:
    """Return the key of the environment that `recipe` builds from the image `base_id`: a hash of both, in hex."""
    content = [_FORMAT, base_id, recipe.pre_commands, recipe.requirements_txt]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@frozen(kw_only=True)
class Requirements:
    """The packages that `text` names. `pinned`: every line names an exact version. `own_index`: the text sets a package
    index."""

    text: str
    pinned: bool
    own_index: bool


def parse_requirements(text: str) -> Requirements | None:
    """Return the requirements in `text`; None if it names no package.

    Raise `InvalidRequest` with the line's number if a line is malformed or cannot work in a sandbox."""
    if "\0" in text:
        raise InvalidRequest("requirements_txt contains a NUL character", field=FIELD)
    pinned, own_index, has_packages = True, False, False
    for number, line in _logical_lines(text):
        if line.startswith("-"):
            own_index |= _check_option(number, line) in _INDEX_OPTIONS
        else:
            has_packages = True
            pinned &= _check_requirement(number, line)
    return Requirements(text=text, pinned=pinned, own_index=own_index) if has_packages else None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines without comments, each with its number. Lines that end in a backslash are joined."""
    pending, begun = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        begun = begun if pending else number
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            pending += raw[:-1] + " "
            continue
        line = _COMMENT.sub("", pending + raw).strip()
        pending = ""
        if line:
            yield begun, line
    if pending.strip():
        yield begun, pending.strip()


def _check_option(number: int, line: str) -> str:
    """Return the name of the option on a line; raise `InvalidRequest` if it is not allowed."""
    name, _, value = line.replace("=", " ", 1).partition(" ")
    short = name[:2]
    if name not in _OPTIONS and not name.startswith("--") and short in _OPTIONS | _REJECTED_OPTIONS.keys():
        name, value = short, name[2:] + value  # as in -rother.txt
    if name in _REJECTED_OPTIONS:
        raise _invalid_line(number, line, _REJECTED_OPTIONS[name])
    if name not in _OPTIONS:
        raise _invalid_line(number, line, f"unknown option; allowed are {', '.join(sorted(_OPTIONS))}")
    if name in ("-f", "--find-links") and not _URL.match(value.strip()):
        raise _invalid_line(
            number, line, "a local directory is not available in the setup; use an https:// URL"
        )
    return name


def _check_requirement(number: int, line: str) -> bool:
    """Return True if the line names an exact version; raise `InvalidRequest` if it is not a requirement."""
    plain = _HASH.sub("", line).strip()
    if _URL.fullmatch(plain.split(" ;")[0].split("#")[0].strip()):
        return False
    if plain.startswith((".", "/", "~", "file:")) or (
        plain.endswith((".whl", ".tar.gz", ".zip")) and "@" not in plain
    ):
        raise _invalid_line(
            number, line, "a local path is not available in the setup; name a package or a URL"
        )
    try:
        requirement = Requirement(plain)
    except InvalidRequirement as error:
        raise _invalid_line(number, line, str(error).splitlines()[0]) from error
    if requirement.url is not None:
        if not _URL.match(requirement.url):
            raise _invalid_line(
                number, line, "a local path is not available in the setup; use an https:// URL"
            )
        return False
    return any(s.operator in ("==", "===") and "*" not in s.version for s in requirement.specifier)


def _invalid_line(number: int, line: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"line {number} of requirements_txt, {line[:100]!r}: {reason}", field=FIELD)
