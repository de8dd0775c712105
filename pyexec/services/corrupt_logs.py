"""Executions whose stored log cannot be read. They are left alone, and stop nothing else."""

import logging

from attrs import define, field

from pyexec.errors import CorruptLog

logger = logging.getLogger(__name__)


@define
class CorruptLogReporter:
    """Says of each of them once, and not at every look, that it is there."""

    _known: set[str] = field(factory=set)

    def __len__(self) -> int:
        """How many were met."""
        return len(self._known)

    def report(self, execution_id: str, error: CorruptLog) -> None:
        """It was met; what can be done about it is the operator's."""
        if execution_id not in self._known:
            self._known.add(execution_id)
            logger.error("the log of %s cannot be read, so it is left alone: %s", execution_id, error)
