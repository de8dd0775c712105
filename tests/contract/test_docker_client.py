"""Times and request names of the Docker adapter, without a Docker engine."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pyexec.adapters.docker.client import open_client, operation_of, parse_time
from pyexec.adapters.docker.images import check_volumes
from pyexec.adapters.docker.user_ids import check_mapped_ids
from pyexec.errors import ImageUnavailable, SettingsError
from pyexec.metrics import NOOP_METER

TIME = datetime(2024, 2, 29, 3, 4, 5, 123456, UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29T03:04:05.123456789Z", TIME),
        ("2024-02-29T05:04:05.123456789+02:00", TIME.astimezone(timezone(timedelta(hours=2)))),
        ("2024-02-29T03:04:05.1234567Z", TIME),
        ("2024-02-29T03:04:05.1Z", TIME.replace(microsecond=100_000)),
        ("2024-02-29T03:04:05Z", TIME.replace(microsecond=0)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_docker_are_parsed_to_the_microsecond(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["", "now", "2024-02-29T03:04:05.123456789", "2023-02-29T03:04:05Z"])
def test_other_texts_are_not_times(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1.41/containers/create", "containers create"),
        ("POST", "/v1.41/containers/0123abcd/kill", "containers kill"),
        ("DELETE", "/v1.41/containers/0123abcd", "containers delete"),
        ("GET", "/v1.41/images/registry.example/team/app:1/json", "images json"),
        ("GET", "/version", "version get"),
        ("GET", "/v1.41/distribution/team/app/json", "other"),
    ],
)
def test_labels_of_requests_hold_no_ids_and_names(method: str, path: str, expected: str) -> None:
    assert operation_of(method, path) == expected


@pytest.mark.parametrize("option", ["name=userns", "name=rootless"])
def test_user_ids_that_the_engine_cannot_map_are_refused(option: str) -> None:
    check_mapped_ids(range(100000, 101000), ["name=seccomp,profile=default"])
    check_mapped_ids(range(60000, 61000), [option])
    with pytest.raises(SettingsError, match=r"PYEXEC_SANDBOX_UIDS is 100000-100999; .* such as 60000-60999"):
        check_mapped_ids(range(100000, 101000), ["name=seccomp,profile=default", option])


def test_paths_of_volumes_are_normalized() -> None:
    assert check_volumes("image", ["/srv/a/", "//data", "/srv/../b", "/data"]) == (
        "/b",
        "/data",
        "/srv/a",
    )


@pytest.mark.parametrize(
    "declared", [["/"], ["data"], ["/proc"], ["/dev/x/.."], ["/sys/fs"], [f"/{n}" for n in range(17)]]
)
def test_images_with_volumes_that_sandboxes_do_not_support_are_refused(declared: list[str]) -> None:
    with pytest.raises(ImageUnavailable, match=r"as a volume|at most 16"):
        check_volumes("image", declared)


@pytest.mark.parametrize(
    "host",
    [
        "docker",
        "unix://",
        "tcp://",
        "tcp://docker:port",
        "tcp://[::1",
        "ssh://me@docker",
        "npipe:////./pipe/docker",
    ],
)
async def test_an_address_of_no_known_form_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(SettingsError, match="allowed are unix:///path and tcp://host:port"):
        open_client(host, 5, NOOP_METER)
