"""Find the reason why a step of a setup failed, at the end of its output."""

import re

_UNTRUSTED = re.compile("invalid peer certificate|CERTIFICATE_VERIFY_FAILED|unable to get (local )?issuer")
"""Messages of uv, of Python and of OpenSSL about a certificate, such as that of a proxy which inspects TLS."""
_NO_GIT = "Git executable not found"
"""A message of uv about a requirement such as `git+https://…`."""
_NO_COMPILER = re.compile(
    r"No such file or directory: '[^']*\b(gcc|g\+\+|cc|c\+\+|clang)'|command '[^']*' failed: No such file"
)
"""Messages of setuptools about a missing compiler."""
_GENERAL_HINT = "hint: Build failures usually indicate a problem with the package or the build environment"
_HEAD_CHARACTERS = 180
_REASON_CHARACTERS = 500


class OutputTail:
    """Keeps the end of a step's output, where installers print errors."""

    BYTES = 8 * 1024

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-self.BYTES :]

    def reason(self) -> tuple[str, bool]:
        """Return the lines from the first that begins like an error message; without one, the last line.

        Of a long text, the beginning and the end are kept: a failed build ends with the reason. The second value is
        true if the reason has all lines of an error message."""
        lines = [line.strip() for line in self._data.decode("utf-8", "replace").splitlines() if line.strip()]
        signs = ("error", "e:", "\u00d7", "fatal")
        first = next((n for n, line in enumerate(lines) if line.lower().startswith(signs)), -1)
        reason = " ".join(lines[first:]).removesuffix(_GENERAL_HINT).strip() or "it printed nothing"
        is_compiler_missing = _NO_COMPILER.search(reason)
        is_whole = first >= 0 and len(reason) <= _REASON_CHARACTERS
        if len(reason) > _REASON_CHARACTERS:
            rest = _REASON_CHARACTERS - _HEAD_CHARACTERS - 3
            reason = f"{reason[:_HEAD_CHARACTERS].rstrip()} … {reason[-rest:].lstrip()}"
        if _UNTRUSTED.search(reason):
            reason += "; the server's operator can add certificate authorities with PYEXEC_CA_BUNDLE"
        elif _NO_GIT in reason:
            reason += (
                " Name an archive instead, such as https://host/archive/NAME.tar.gz, or an image with git."
            )
        elif is_compiler_missing:
            reason += (
                "; the package is built from source, and the image has no compiler: install one with"
                " pre_commands, such as `apt-get update && apt-get install -y gcc g++ python3-dev`"
            )
        return reason, is_whole
