"""Keep the summaries of ended executions in memory, for lists that are read again and again."""

from typing import Final

from attrs import define, field

from pyexec.domain.execution import Execution, Phase
from pyexec.domain.result import Summary, summarize

KEPT_MAX: Final = 2000
"""A summary takes about a kilobyte."""


@define
class EndedSummaries:
    """The summaries of the ended executions that were summarized last. They never change."""

    _kept: dict[str, Summary] = field(factory=dict)

    def get(self, execution_id: str) -> Summary | None:
        """Return the summary of an execution, if it is kept."""
        return self._kept.get(execution_id)

    def summarize(self, execution: Execution) -> Summary:
        """Return the summary of an execution, and keep it if the execution has ended."""
        summary = summarize(execution)
        if execution.phase is Phase.ENDED:
            self._kept[execution.id] = summary
            if len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]
        return summary
