"""An environment: what an image becomes once a caller's commands and requirements are installed in it.

The format of requirements is pip's ("Requirements File Format" of its documentation); a line's grammar is PEP 508."""

import hashlib
import json
import re
from collections.abc import Iterator

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement

from pyexec.errors import InvalidRequest

REPOSITORY = "pyexec-env"
_FORMAT = 1
"""Part of every key: raised when the same recipe would be built in another way."""
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
_LOCAL = {
    "-e": "an editable install needs a project on disk, and there is none yet; leave out -e",
    "--editable": "an editable install needs a project on disk, and there is none yet; leave out --editable",
    "-r": "another file cannot be read from here; put its lines into requirements_txt",
    "--requirement": "another file cannot be read from here; put its lines into requirements_txt",
    "-c": "another file cannot be read from here; put its versions into requirements_txt",
    "--constraint": "another file cannot be read from here; put its versions into requirements_txt",
}
_COMMENT = re.compile(r"(^|\s+)#.*$")
_HASH = re.compile(r"\s--hash[= ]\S+")
_URL = re.compile(r"(?:git\+|hg\+|svn\+|bzr\+)?(?:https?|ssh|git)://\S+", re.IGNORECASE)


@frozen(kw_only=True)
class Requirements:
    """What `text` asks for. `pinned`: every line names one version; `own_index`: it says where to look itself."""

    text: str
    pinned: bool
    own_index: bool


def parse_requirements(text: str) -> Requirements | None:
    """The requirements in `text`; None when it asks for nothing.

    Raises `InvalidRequest` naming the line, for what is malformed or cannot work in a sandbox."""
    if "\0" in text:
        raise InvalidRequest("requirements_txt holds a NUL character", field=FIELD)
    pinned, own_index, asked = True, False, False
    for number, line in _logical_lines(text):
        if line.startswith("-"):
            own_index |= _check_option(number, line) in _INDEX_OPTIONS
        else:
            asked = True
            pinned &= _check_requirement(number, line)
    return Requirements(text=text, pinned=pinned, own_index=own_index) if asked else None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those joined that end in a backslash, each with the number it begins at."""
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
    name, _, value = line.replace("=", " ", 1).partition(" ")
    if name not in _OPTIONS and not name.startswith("--") and name[:2] in _OPTIONS | _LOCAL.keys():
        name, value = name[:2], name[2:] + value  # as in -rother.txt
    if name in _LOCAL:
        raise _refused(number, line, _LOCAL[name])
    if name not in _OPTIONS:
        raise _refused(number, line, f"allowed are {', '.join(sorted(_OPTIONS))}")
    if name in ("-f", "--find-links") and not _URL.match(value.strip()):
        raise _refused(number, line, "a folder cannot be read from here; give an address with https://")
    return name


def _check_requirement(number: int, line: str) -> bool:
    """Whether the line names one version."""
    plain = _HASH.sub("", line).strip()
    if _URL.fullmatch(plain.split(" ;")[0].split("#")[0].strip()):
        return False
    if plain.startswith((".", "/", "~", "file:")) or (
        plain.endswith((".whl", ".tar.gz", ".zip")) and "@" not in plain
    ):
        raise _refused(number, line, "a local path cannot be read from here; name a package or an address")
    try:
        requirement = Requirement(plain)
    except InvalidRequirement as error:
        raise _refused(number, line, str(error).splitlines()[0]) from error
    if requirement.url is not None:
        if not _URL.match(requirement.url):
            raise _refused(
                number, line, "a local path cannot be read from here; give an address with https://"
            )
        return False
    return any(s.operator in ("==", "===") and "*" not in s.version for s in requirement.specifier)


def _refused(number: int, line: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"line {number} of requirements_txt, {line[:100]!r}: {reason}", field=FIELD)


@frozen(kw_only=True)
class Recipe:
    """How an environment comes to be: `pre_commands` in order, then the requirements, on top of an image."""

    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it leads to the same today and tomorrow. What commands do nobody can tell."""
        requirements = parse_requirements(self.requirements_txt or "")
        return not self.pre_commands and (requirements is None or requirements.pinned)


def environment_key(base_id: str, recipe: Recipe) -> str:
    """The name of what `recipe` makes of the image with this id: a hash of all that decides it, in hex."""
    content = [_FORMAT, base_id, recipe.pre_commands, recipe.requirements_txt]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
