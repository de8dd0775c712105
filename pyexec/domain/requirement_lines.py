"""The lines of a requirements.txt, and the options on them, as pip reads them."""

import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from urllib.parse import urlsplit

from pyexec.errors import InvalidRequest, quote

FIELD = "requirements_txt"
LINE_LENGTH_MAX = 4096
"""Maximum length of a line without its hashes. A package may have hundreds of hashes."""

_NO_PROJECT = "editable installs are not supported, because the setup has no project directory; remove {}"
_SHORT = {"-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-c": "--constraint"}
_FLAGS = frozenset({"--no-index", "--pre", "--require-hashes"})
_WITH_VALUE = frozenset(
    {
        "--constraint",
        "--extra-index-url",
        "--find-links",
        "--index-url",
        "--no-binary",
        "--only-binary",
        "--requirement",
        "--trusted-host",
    }
)
_REJECTED = {
    "-e": _NO_PROJECT.format("-e"),
    "--editable": _NO_PROJECT.format("--editable"),
    "--prefer-binary": "this option is not supported; use --only-binary to accept no source packages",
}
PACKAGE_OPTIONS = frozenset(
    {"--config-settings", "--config-setting", "--global-option", "--install-option", "-C"}
)
"""Options for the build of one package. pip allows them only behind the package."""
_COMMENT = re.compile(r"(?:^|\s)#")


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines without comments, each with its number. Lines that end in a backslash are joined."""
    pending: list[str] = []
    begun = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        begun = begun if pending else number
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            pending.append(raw[:-1])
            continue
        # A comment line ends what came before it; the space makes it a comment there, too.
        last = f" {raw}" if raw.lstrip().startswith("#") else raw
        line = _without_comment("".join([*pending, last]))
        pending.clear()
        if line:
            yield begun, line
    if line := "".join(pending).strip():
        yield begun, line


def _without_comment(line: str) -> str:
    comment = _COMMENT.search(line)
    return (line if comment is None else line[: comment.start()]).strip()


def next_option(words: list[str], invalid: Callable[[str], InvalidRequest]) -> tuple[str, str]:
    """Remove the next option and its value from `words`. Options without a value have the value ''."""
    word = words.pop(0)
    if not word.startswith("-"):
        raise invalid(f"{quote(word)} follows an option; write a package on a line of its own")
    name, equals, value = word.partition("=")
    if not name.startswith("--") and len(name) > 2:  # as in -ihttps://example.org
        name, value, equals = name[:2], f"{name[2:]}{equals}{value}", "="
    if name in _REJECTED:
        raise invalid(_REJECTED[name])
    name = "--index-url" if name == "--pypi-url" else _SHORT.get(name, name)
    if name in _FLAGS and not equals:
        return name, ""
    if name not in _WITH_VALUE:
        allowed = ", ".join(sorted(_FLAGS | _WITH_VALUE))
        raise invalid(f"unknown option {quote(name)}; allowed are {allowed}")
    if not equals and words:
        value = words.pop(0)
    if not value or value.startswith("-") or any(character.isspace() for character in value):
        raise invalid(f"{name} needs a value without spaces")
    return name, value


def invalid_line(number: int, line: str, reason: str) -> InvalidRequest:
    """Return the error for a line."""
    return InvalidRequest(f"line {number} of requirements_txt, {quote(line)}: {reason}", field=FIELD)


def untrusted_host(url: str, trusted: AbstractSet[str]) -> str | None:
    """Return the host of an index over `http://` that pip ignores; None for other URLs and for trusted hosts."""
    try:
        index = urlsplit(url.strip())
        host, port = index.hostname or "", index.port or 80
    except ValueError:  # the installer names what is wrong
        return None
    is_secure = index.scheme != "http" or _is_this_machine(host)
    return None if is_secure or host in trusted or f"{host}:{port}" in trusted else host


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False
