"""One program of the corpus."""

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Case:
    """`main` is main.py, `files` what lies beside it. `waits` says whether the interpreter that waits in the sandbox
    may run it, as it does most."""

    main: str | bytes
    files: Mapping[str, str | bytes] = field(factory=dict, kw_only=True)
    stdin: str = field(default="", kw_only=True)
    waits: bool = field(default=True, kw_only=True)

    @property
    def source(self) -> bytes:
        """Return the content of main.py."""
        return self.main if isinstance(self.main, bytes) else self.main.encode()
