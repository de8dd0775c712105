"""The other replicas, as one replica sees them."""

from collections.abc import AsyncIterator
from typing import Protocol

from attrs import frozen

from pyexec.domain.execution import Execution
from pyexec.domain.output_log import Stream

REPLICA_HEADER = "X-Pyexec-Replica"
"""Marks a request of one replica to another, with the asking one's name."""


@frozen(kw_only=True)
class Caller:
    """Who asks: with which token, and whether it is another replica, which is answered from here alone."""

    token: str | None = None
    is_replica: bool = False


class Peers(Protocol):
    """The other replicas, asked for what only they know: the output of what they run."""

    def output(
        self, execution: Execution, offset: int, caller: Caller, *, follow: bool
    ) -> AsyncIterator[tuple[Stream, bytes]]:
        """What an execution has printed from an offset on, in setup or since it runs: as it comes, until its log
        has news, or by now.

        Raises `Unavailable` when its owner cannot be reached, or breaks off."""
