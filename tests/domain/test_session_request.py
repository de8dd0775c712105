"""Test how a request for a session becomes its spec, and how its state becomes a response."""

from datetime import timedelta
from typing import Any

import pytest

from pyexec.codec import to_json
from pyexec.domain.session import fold_session
from pyexec.domain.session_events import CloseReason, SessionClosed, SessionOpened, SessionPlaced
from pyexec.domain.session_request import SessionRequest, resolve_session
from pyexec.domain.session_view import view_of
from pyexec.domain.spec import SessionSpec
from pyexec.errors import InvalidRequest, SettingsError
from pyexec.limits import policy_of, session_limits_of
from pyexec.settings_parser import read_settings
from pyexec.web.request_parser import parse_request
from tests.events import START

SETTINGS = read_settings({"PYEXEC_SESSION_LIFETIME": "7200"})
SESSION = "ses_" + 32 * "0"


def resolved(body: dict[str, Any]) -> SessionSpec:
    request = parse_request(body, SessionRequest, what="body")
    return resolve_session(request, policy_of(SETTINGS, 4), session_limits_of(SETTINGS))


def test_missing_fields_have_the_defaults_of_the_server() -> None:
    spec = resolved({})
    assert (spec.docker_image, spec.idle_timeout_seconds, spec.lifetime_seconds) == (
        "python:3.12-slim",
        600,
        7200,
    )
    assert (spec.limits.memory_mb, spec.limits.timeout_seconds, spec.recipe) == (1024, 300, None)


def test_given_fields_are_taken() -> None:
    body = {
        "docker_image": "python:3.13",
        "requirements_txt": "numpy\n",
        "pre_commands": ["true"],
        "env_vars": ["A=1"],
        "config": {"memory_mb": 64, "network_disabled": False},
        "idle_timeout_seconds": 1,
        "lifetime_seconds": 7200,
    }
    spec = resolved(body)
    assert spec.recipe is not None
    assert (spec.recipe.requirements_txt, spec.recipe.pre_commands) == ("numpy\n", ("true",))
    assert (spec.env_vars, spec.limits.memory_mb, spec.limits.network_disabled) == (("A=1",), 64, False)
    assert (spec.idle_timeout_seconds, spec.lifetime_seconds) == (1, 7200)


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"idle_timeout_seconds": 0.5}, "idle_timeout_seconds", "at least 1 and at most 3600, not 0.5"),
        ({"idle_timeout_seconds": 3601}, "idle_timeout_seconds", "at most 3600"),
        ({"lifetime_seconds": 0}, "lifetime_seconds", "at least 1 and at most 7200, not 0"),
        ({"lifetime_seconds": 10**400}, "lifetime_seconds", "at most 7200"),
        ({"lifetime_seconds": "1"}, "lifetime_seconds", "must be a number"),
        ({"config": {"memory_mb": 1}}, "config.memory_mb", "at least 16"),
        ({"docker_image": "no image"}, "docker_image", "image name"),
        ({"env_vars": ["A"]}, "env_vars[0]", "A"),
        ({"requirements_txt": "-e ."}, "requirements_txt", "-e"),
        ({"stdin": "x"}, "stdin", "unknown field 'stdin'"),
        ({"packages": "six"}, "packages", "did you mean 'requirements_txt'"),
        ({"idle_timeout": 5}, "idle_timeout", "did you mean 'idle_timeout_seconds'"),
    ],
)
def test_an_error_names_its_field(body: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(body)
    assert refused.value.field == field
    assert words in str(refused.value)


def test_the_default_idle_timeout_is_not_above_its_ceiling() -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"PYEXEC_SESSION_IDLE_TIMEOUT": "4000"})
    assert "PYEXEC_SESSION_IDLE_TIMEOUT is 4000; allowed: at most PYEXEC_MAX_SESSION_IDLE_TIMEOUT" in str(
        refused.value
    )


def test_a_session_is_shown_with_what_applies() -> None:
    spec = resolved({"lifetime_seconds": 100})
    opened = SessionOpened(at=START, nonce="1", spec=spec)
    placed = SessionPlaced(at=START, nonce="2", replica="rep_1", engine="e", container="c")
    session = fold_session(SESSION, [opened, placed])
    shown = to_json(view_of(session, waiting=2, running="exe_1"))
    assert shown["cells"] == {"waiting": 2, "running": "exe_1"}
    assert (shown["id"], shown["status"], shown["replica"]) == (SESSION, "open", "rep_1")
    assert "close_reason" not in shown
    assert view_of(session).expires_at is None  # in use, or owned by another replica
    assert view_of(session, idle_since=START).expires_at == START + timedelta(seconds=100)
    closed = fold_session(
        SESSION,
        [opened, placed, SessionClosed(at=START + timedelta(seconds=1), nonce="3", reason=CloseReason.IDLE)],
    )
    shown = to_json(view_of(closed))
    assert (shown["status"], shown["close_reason"]) == ("closed", "idle")
    assert "closed_at" in shown
    assert "expires_at" not in shown


def test_an_idle_session_expires_before_the_end_of_its_lifetime() -> None:
    spec = resolved({"lifetime_seconds": 100, "idle_timeout_seconds": 10})
    session = fold_session(SESSION, [SessionOpened(at=START, nonce="1", spec=spec)])
    expires_at = view_of(session, idle_since=START + timedelta(seconds=5)).expires_at
    assert expires_at == START + timedelta(seconds=15)
