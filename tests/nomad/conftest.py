"""Print the figures of the deployments on a real Nomad, as the table of docs/soak.md."""

import pytest

from tests.cluster.scene_checks import Row, table

FIGURES: list[Row] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("deployments on Nomad")
        for line in table(FIGURES):
            terminalreporter.write_line(line)
