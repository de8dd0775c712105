"""Test the spec of a request under the operator's policy, at and around each limit."""

import math

import pytest
from attrs import evolve

from pyexec.domain.spec import Limits, Metadata, Policy, RequestedLimits, Spec, resolve
from pyexec.errors import InvalidRequest
from tests.events import LIMITS

CEILINGS = Limits(
    timeout_seconds=3600,
    network_disabled=False,
    memory_mb=4096,
    disk_mb=8192,
    cpu_shares=4096,
    cpus=2.0,
    cpu_seconds=60.0,
)
POLICY = Policy(default_image="python:3.12-slim", defaults=LIMITS, ceilings=CEILINGS)
NO_CPUS_CEILING = evolve(POLICY, ceilings=evolve(CEILINGS, cpus=None))


def refused(metadata: Metadata, policy: Policy = POLICY) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        resolve(metadata, policy)
    return caught.value


def test_an_empty_request_gets_the_defaults() -> None:
    assert resolve(Metadata(), POLICY) == Spec(docker_image="python:3.12-slim", limits=LIMITS)


def test_requested_values_are_kept() -> None:
    asked = Metadata(
        entrypoint="./pkg//main.py",
        docker_image="example/image@sha256:0123012301230123012301230123012301230123012301230123012301230123",
        stdin="a\0b",
        env_vars=("A=1", "B=", "C=x=y", "D=two\nlines"),
        script_args=("", "--x", "ü"),
        config=RequestedLimits(
            timeout_seconds=0.5, network_disabled=False, memory_mb=64, disk_mb=10, cpu_shares=2, cpus=0.5
        ),
    )
    assert resolve(asked, POLICY) == Spec(
        entrypoint="pkg/main.py",
        docker_image="example/image@sha256:0123012301230123012301230123012301230123012301230123012301230123",
        stdin="a\0b",
        env_vars=asked.env_vars,
        script_args=asked.script_args,
        limits=Limits(
            timeout_seconds=0.5, network_disabled=False, memory_mb=64, disk_mb=10, cpu_shares=2, cpus=0.5
        ),
    )


BOUNDS = [
    ("timeout_seconds", 0.001, 3600, 0.0001),
    ("memory_mb", 16, 4096, 1),
    ("disk_mb", 1, 8192, 1),
    ("cpu_shares", 2, 4096, 1),
    ("cpus", 0.01, 2.0, 0.001),
    ("cpu_seconds", 0.01, 60.0, 0.001),
]


@pytest.mark.parametrize(("name", "least", "most", "step"), BOUNDS)
def test_a_limit_holds_from_its_least_to_its_ceiling(
    name: str, least: float, most: float, step: float
) -> None:
    for value in (least, most):
        assert getattr(resolve(limited(name, value), POLICY).limits, name) == value
    for value in (0, -1, least - step, most + step, 10**400 if isinstance(least, int) else 1e300):
        error = refused(limited(name, value))
        assert error.field == f"config.{name}"
        assert f"at least {least:g}" in str(error)
        assert f"at most {most:g}" in str(error)


@pytest.mark.parametrize("name", ["timeout_seconds", "cpus"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_limit_is_a_finite_number(name: str, value: float) -> None:
    assert refused(limited(name, value)).field == f"config.{name}"
    assert refused(limited(name, value), NO_CPUS_CEILING).field == f"config.{name}"


def test_a_limit_without_a_ceiling_has_none() -> None:
    assert resolve(limited("cpus", 1000.0), NO_CPUS_CEILING).limits.cpus == 1000
    assert "at most" not in str(refused(limited("cpus", 0.0), NO_CPUS_CEILING))


def limited(name: str, value: float) -> Metadata:
    return Metadata(config=RequestedLimits(**{name: value}))


@pytest.mark.parametrize(
    "entrypoint",
    ["", "/main.py", "..", "../main.py", "a/../../main.py", ".", "pkg/", "./", "a\0.py", "//main.py"],
)
def test_an_invalid_entrypoint_is_refused(entrypoint: str) -> None:
    assert refused(Metadata(entrypoint=entrypoint)).field == "entrypoint"


def test_an_absolute_entrypoint_below_work_is_not_called_outside() -> None:
    assert "is an absolute path" in str(refused(Metadata(entrypoint="/work/main.py")))


@pytest.mark.parametrize("pair", ["", "A", "=1", "A=\0", "A\0=1"])
def test_an_invalid_environment_variable_is_refused(pair: str) -> None:
    assert refused(Metadata(env_vars=("GOOD=1", pair))).field == "env_vars[1]"


def test_an_argument_has_no_nul() -> None:
    assert refused(Metadata(script_args=("ok", "a\0b"))).field == "script_args[1]"


@pytest.mark.parametrize("image", ["a b", "a\n", "a\tb", "a" * 513, "a\x1bb", "\0"])
def test_an_invalid_image_name_is_refused(image: str) -> None:
    assert refused(Metadata(docker_image=image)).field == "docker_image"


def test_an_empty_image_is_the_default() -> None:
    assert resolve(Metadata(docker_image=""), POLICY) == resolve(Metadata(), POLICY)


@pytest.mark.parametrize(("field", "value"), [("requirements_txt", "x"), ("pre_commands", ("true",))])
def test_setup_is_refused_if_the_operator_forbids_it(field: str, value: object) -> None:
    error = refused(Metadata(**{field: value}), evolve(POLICY, setup_allowed=False))
    assert error.field == field
    assert "PYEXEC_SETUP_NETWORK" in str(error)


def test_an_invalid_command_is_refused() -> None:
    for command in ("", " ", "a\0b"):
        assert refused(Metadata(pre_commands=("true", command))).field == "pre_commands[1]"


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("python:3.12-slim", True),
        ("python:3.10", True),
        ("team/tools/python@sha256:" + "0" * 64, True),
        ("python", False),
        ("pythonic:3.10", False),
        ("evil/python:3.10", False),
    ],
)
def test_only_allowed_images_may_be_asked_for(image: str, allowed: bool) -> None:
    policy = evolve(POLICY, allowed_images=("python:*", "team/*"))
    if allowed:
        assert resolve(Metadata(docker_image=image), policy).docker_image == image
    else:
        error = refused(Metadata(docker_image=image), policy)
        assert error.field == "docker_image"
        assert "python:*, team/*" in str(error)
    assert resolve(Metadata(), policy).docker_image == POLICY.default_image


@pytest.mark.parametrize(
    ("image", "pattern", "allowed"),
    [
        ("python:5000/app:1", "python:*", False),
        ("python.example.com/app", "python*", False),
        ("team.example.com/app", "team*/*", False),
        ("localhost/app", "local*", False),
        ("ghcr.io.example.com/app", "ghcr.io*", False),
        ("ghcr.io/team/app:1", "ghcr.io/team/*", True),
        ("a.example.com:5000/app", "*.example.com:5000/*", True),
        ("quay.io/app", "*/app", True),
        ("quay.io/app", "*", True),
        ("team/app:1", "t*", True),
    ],
)
def test_only_a_pattern_with_a_registry_allows_images_of_a_registry(
    image: str, pattern: str, allowed: bool
) -> None:
    assert evolve(POLICY, allowed_images=(pattern,)).allows(image) is allowed
