"""Test valid and invalid requests that Schemathesis generates from the OpenAPI document: the real server answers
each as the document says."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import anyio
import pytest
import schemathesis
from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pyexec.settings_parser import read_settings
from pyexec.web.application import ROUTES
from pyexec.web.openapi.document import openapi_document, server_info
from tests.support.api import api_of
from tests.support.archives import script, tar_of
from tests.support.server import Server, running_server

CASES, THOROUGH_CASES = 15, 400
IS_THOROUGH = settings.get_current_profile_name() == "thorough"
"""Of each operation, `make soak` makes many other requests in each run; `make test` makes the same few."""
PATIENCE_SECONDS = 120
BOUNDS = {
    "default_timeout": "2",
    "max_timeout": "2",
    "default_memory_mb": "64",
    "max_memory_mb": "128",
    "default_disk_mb": "64",
    "max_disk_mb": "128",
    "max_cpus": "1",
    "setup_network": "none",
    "cleanup_ttl": "86400",
}
"""Settings of a server with low limits, without setups, and without retention during the test."""
PROGRAMS = ("print(6 * 7)", "import sys\nprint(sys.argv, input())", "raise SystemExit(3)", "1 / 0")
WRITTEN = "out.txt"
REFUSED = ("docker_image", "python_version", "requirements_txt", "pre_commands", "entrypoint", "webhook_url")
"""Fields that this server refuses, or whose values match no generated archive."""
ARCHIVES = st.one_of(
    st.sampled_from(PROGRAMS).map(script),
    st.dictionaries(st.text(min_size=1, max_size=40), st.binary(max_size=600), max_size=3).map(tar_of),
    st.binary(max_size=2000),
)
schemathesis.openapi.media_type("application/x-tar", ARCHIVES)

SETTINGS = read_settings({f"PYEXEC_{name.upper()}": value for name, value in BOUNDS.items()})
# This server installs nothing, so it has no IPython for sessions; tests/web/test_sessions.py tests their answers.
documented = schemathesis.openapi.from_dict(openapi_document(ROUTES, server_info(SETTINGS))).exclude(
    path_regex="^/api/v1/sessions"
)
# The schema cannot express all rules, so the server may refuse a request that matches the schema.
documented.config.checks.positive_data_acceptance.enabled = False
documented.config.generation.update(allow_extra_parameters=False)


@define
class Target:
    """The server, ids of its executions, and counts of its responses."""

    server: Server
    known: list[str]
    turn: int = 0
    answers: Counter[tuple[str, int]] = field(factory=Counter)

    def check(self, case: schemathesis.Case) -> None:
        if case.meta.generation.mode.is_positive and case.meta.phase.name.value == "fuzzing":
            self._make_servable(case)
        response = case.call(base_url=self.server.url, timeout=PATIENCE_SECONDS)
        self.answers[case.operation.label, response.status_code] += 1
        case.validate_response(response)

    def _make_servable(self, case: schemathesis.Case) -> None:
        """Change three of four valid requests so that this server can serve them, not just refuse them."""
        self.turn += 1
        if self.turn % 4 == 0:
            return
        if "id" in case.path_parameters:
            case.path_parameters["id"] = self.known[self.turn % 4 - 1]
        if "/files" in case.operation.path:
            case.path_parameters["id"] = self.known[0]
        if "path" in case.path_parameters:
            case.path_parameters["path"] = WRITTEN
        if "cursor" in case.query:
            case.query["cursor"] = self.known[0]
        if isinstance(case.body, dict):
            leave_out(case.body, REFUSED)
            leave_out(case.body.get("metadata") or {}, REFUSED)  # null means left out
        if case.operation.path.endswith("/eval"):
            has_code = case.body.get("code") is not None
            leave_out(case.body, ["files"] if has_code else ["code"])
            if not has_code and not case.body.get("files"):
                case.body["files"] = [{"name": "main.py", "content": PROGRAMS[0]}]


def leave_out(asked: dict[str, Any], names: Sequence[str]) -> None:
    for name in names:
        asked.pop(name, None)


@pytest.fixture(scope="module")
def target(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    data = tmp_path_factory.mktemp("bounded") / "data"
    with running_server(data, image, allowed_images=image, **BOUNDS) as server:
        yield Target(server, anyio.run(some_executions, server.url))
        log = server.log.read_text()
        assert "Traceback" not in log, log


async def some_executions(url: str) -> list[str]:
    """Run programs with and without output files, and one that fails; return their ids."""
    async with api_of(url) as api:
        results = [
            await api.run(f"open({WRITTEN!r}, 'w').write('kept')", output_files=["*.txt"]),
            await api.run("1 / 0"),
        ]
        answer = await api.eval({"code": "6 * 7", "eval_last_expr": True})
        return [result["execution_id"] for result in (*results, answer.document)]


@documented.parametrize()
@settings(
    max_examples=THOROUGH_CASES if IS_THOROUGH else CASES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=not IS_THOROUGH,
)
def test_every_answer_is_documented(case: schemathesis.Case, target: Target) -> None:
    target.check(case)


def test_every_operation_has_succeeded_at_least_once(target: Target) -> None:
    asked = {operation for operation, _ in target.answers}
    assert asked == {operation for operation, status in target.answers if status < 300}
