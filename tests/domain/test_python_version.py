"""Test which Python satisfies a specifier, and which images are tried."""

from functools import partial

import pytest

from pyexec.domain.python_version import (
    CLAUSES_MAX,
    check_python,
    images_to_try,
    list_versions,
    may_satisfy,
    specifier_defect,
    tag_version,
)
from pyexec.domain.spec import Limits, Policy, Spec
from pyexec.errors import PythonMismatch
from tests.support.growth import FACTOR, assert_growth

LIMITS = Limits(timeout_seconds=1, network_disabled=True, memory_mb=64, disk_mb=64, cpu_shares=1)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("python:3.12-slim", "3.12"),
        ("python:3.12.4", "3.12.4"),
        ("docker.io/library/python:3.9-alpine3.20@sha256:" + "0" * 64, "3.9"),
        ("python:3", None),
        ("python", None),
        ("python:3.12rc1", None),
        ("team/python:3.12", None),
        ("registry.example.org/python:3.12", None),
    ],
)
def test_the_name_of_an_official_image_tells_its_version(image: str, version: str | None) -> None:
    assert tag_version(image) == version


@pytest.mark.parametrize(
    ("requires", "version", "may"),
    [
        (">=3.11", "3.12.4", True),
        (">=3.13", "3.12.4", False),
        (">=3.12.5", "3.12.4", False),
        (">=3.12.5", "3.12", True),
        ("==3.12.*", "3.12", True),
        ("==3.11.*", "3.12", False),
        ("<3.12", "3.12", False),
        (">=3.13", "3.13.0rc2", False),
        (">=3.13.0rc1", "3.13.0rc2", True),
        (">=3.12", "3.13.0a1", True),
        (">=3.12", "3.13.0+", True),
        (">3.12.98", "3.12", True),
        (">3.12.99", "3.12", False),
        (">3.12.4,<3.12.6,!=3.12.5", "3.12", False),
        (">3.12.4,<3.12.7,!=3.12.5", "3.12", True),
        ("!=3.12.0,!=3.12.1", "3.12", True),
        (">=" + "9" * 250, "3.12", False),
        ("", "3.12.4", True),
        (">=3.13", None, True),
        (">=3.13", "", True),
        (">=3.13", "unknown", True),
        (">=3.13", "9" * 5000, True),
    ],
)
def test_a_version_satisfies_a_specifier(requires: str, version: str | None, may: bool) -> None:
    assert may_satisfy(requires, version) is may


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        (">=3.8", None),
        (",".join(["!=3.1"] * CLAUSES_MAX), None),
        (",".join(["!=3.1"] * (CLAUSES_MAX + 1)), "at most 256 characters and 16 clauses"),
        (",\n".join(f"!=2.{n}" for n in range(3040)), "at most 256 characters and 16 clauses"),
        (">=" + "9" * 5000, "at most 256 characters and 16 clauses"),
        ("x" * 256, "not '" + "x" * 100 + "'…"),
        (16**5000, "in quotes"),
        (3.12, "in quotes"),
    ],
    ids=range(8),
)
def test_a_specifier_is_bounded_and_its_message_short(requires: object, said: str | None) -> None:
    defect = specifier_defect(requires)
    assert defect is None if said is None else said in str(defect)
    assert len(str(defect)) < 250


@pytest.mark.parametrize(("last", "expected"), [("!=3.12.99", True), ("<3", False)])
def test_the_time_of_a_comparison_grows_at_most_with_the_square_of_the_clauses(
    last: str, expected: bool
) -> None:
    def compare(clauses: int) -> None:
        requires = ",".join([*(f"!=3.12.{number}" for number in range(clauses - 1)), last])
        assert may_satisfy(requires, "3.12") is expected

    assert_growth(partial(compare, CLAUSES_MAX // FACTOR), partial(compare, CLAUSES_MAX), power=2)


def test_a_mismatch_with_a_long_specifier_is_a_short_message() -> None:
    spec = Spec(docker_image="team/python", limits=LIMITS, requires_python=">=3.13" + "0" * 200)
    with pytest.raises(PythonMismatch) as caught:
        check_python(spec, "3.12.4")
    assert len(str(caught.value)) < 280


def test_a_mismatch_names_both_versions_and_what_to_do() -> None:
    spec = Spec(docker_image="team/python", limits=LIMITS, requires_python=">=3.13")
    check_python(spec, "3.13.1")
    with pytest.raises(
        PythonMismatch, match=r"requires Python >=3.13, but the image 'team/python' has Python 3.12.4"
    ):
        check_python(spec, "3.12.4")


def test_a_message_lists_images_by_version() -> None:
    images = {"own:1": "3.11.2", "python:3.12-slim": "3.12", "python:3.9-slim": "3.9", "edge": "3.13.0+"}
    assert list_versions(images) == (
        "python:3.9-slim has Python 3.9, own:1 has Python 3.11.2, python:3.12-slim has Python 3.12, "
        "edge has Python 3.13.0+"
    )


def tried(allowed: tuple[str, ...], default_version: str | None) -> list[str]:
    policy = Policy(default_image="own:1", defaults=LIMITS, ceilings=LIMITS, allowed_images=allowed)
    return list(images_to_try(policy, default_version))


def test_the_default_image_comes_first_then_the_allowed_ones_then_the_nearest_official_one() -> None:
    assert tried((), "3.12.4") == [
        "own:1",
        *(f"python:3.{minor}-slim" for minor in (12, 13, 14, 11, 10, 9, 8)),
    ]
    assert tried(("team/b:1", "team/*", "team/a:1"), None) == ["own:1", "team/b:1", "team/a:1"]
    assert tried(("python:3.1*-slim", "team/b:1"), "3.13.1") == [
        "own:1",
        "team/b:1",
        *(f"python:3.{minor}-slim" for minor in (13, 14, 12, 11, 10)),
    ]
