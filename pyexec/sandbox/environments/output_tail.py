"""Find the reason why a step of a setup failed, at the end of its output."""

import re

_UNTRUSTED = re.compile("invalid peer certificate|CERTIFICATE_VERIFY_FAILED|unable to get (local )?issuer")
"""Messages of uv, of Python and of OpenSSL about a certificate, such as that of a proxy which inspects TLS."""
_NO_GIT = "Git executable not found"
"""A message of uv about a requirement such as `git+https://…`."""


class OutputTail:
    """Keeps the end of a step's output, where installers print errors."""

    BYTES = 8 * 1024

    def __init__(self) -> None:
        self._data = b""

    def add(self, data: bytes) -> None:
        self._data = (self._data + data)[-self.BYTES :]

    def reason(self) -> str:
        """Return the lines from the first that begins like an error message; without one, the last line."""
        lines = [line.strip() for line in self._data.decode("utf-8", "replace").splitlines() if line.strip()]
        signs = ("error", "e:", "\u00d7", "fatal")
        first = next((n for n, line in enumerate(lines) if line.lower().startswith(signs)), -1)
        reason = " ".join(lines[first:])[:500] or "it printed nothing"
        if _UNTRUSTED.search(reason):
            reason += "; the server's operator can add certificate authorities with PYEXEC_CA_BUNDLE"
        elif _NO_GIT in reason:
            reason += (
                " Name an archive instead, such as https://host/archive/NAME.tar.gz, or an image with git."
            )
        return reason
