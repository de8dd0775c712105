"""Decide whether a used sandbox may run another program. See docs/design/sandbox-reuse.md."""

import anyio
from attrs import frozen

from pyexec.sandbox.sandbox import Sandbox

AGE_SECONDS_MAX = 600.0
"""Maximum age of a reused sandbox. So a tag that now names another image takes effect after this time at the latest."""


@frozen(kw_only=True)
class ReusePolicy:
    """The operator's choice: whether sandboxes are used again, and for how many programs.

    `log_bytes_max` is what a container's log may hold before the next program, whose output must fit into the rest."""

    enabled: bool
    runs_max: int
    log_bytes_max: int

    def allows(self, sandbox: Sandbox) -> bool:
        """Return True if this sandbox may run another program."""
        return (
            self.enabled
            and not sandbox.was_interrupted
            and sandbox.runs < self.runs_max
            and sandbox.log_bytes < self.log_bytes_max
            and anyio.current_time() < sandbox.created_at + AGE_SECONDS_MAX
        )
