"""Test invalid metadata: the 400 response names the field, the problem and the allowed values."""

from typing import Any

import pytest

from tests.support.api import Api
from tests.support.archives import script
from tests.support.leftovers import check_works, remains
from tests.support.server import Server

HELLO = script("print('hello')")
HUGE = 10**400

BAD_METADATA: list[tuple[Any, int, str, str, tuple[str, ...]]] = [
    # metadata, status, code, field, words in the error message
    ("{", 400, "invalid_request", "metadata", ("not JSON",)),
    (b"\xff\xfe\x00{", 400, "invalid_request", "metadata", ("not",)),
    ("NaN", 400, "invalid_request", "metadata", ("NaN",)),
    ("[" * 100_000, 400, "invalid_request", "metadata", ("deep",)),
    ({"env_vars": [None]}, 400, "invalid_request", "env_vars[0]", ("string", "null")),
    ('{"stdin": "a", "stdin": "b"}', 400, "invalid_request", "stdin", ("stdin", "more than once")),
    ('{"config": {"cpus": 1, "cpus": 1}}', 400, "invalid_request", "cpus", ("cpus", "more than once")),
    ("[]", 400, "invalid_request", "metadata", ("object", "list")),
    ('"main.py"', 400, "invalid_request", "metadata", ("object", "string")),
    ({"entrypont": "main.py"}, 400, "unknown_field", "entrypont", ("entrypont", "entrypoint")),
    ({"config": {"memory": 64}}, 400, "unknown_field", "config.memory", ("memory_mb",)),
    ({"zzzzzzz": 1}, 400, "unknown_field", "zzzzzzz", ("known fields are", "entrypoint")),
    ({"entrypoint": 7}, 400, "invalid_request", "entrypoint", ("string", "number")),
    ({"script_args": "x"}, 400, "invalid_request", "script_args", ("list", "string")),
    ({"script_args": ["a", 1]}, 400, "invalid_request", "script_args[1]", ("string", "number")),
    ({"script_args": ["a\0b"]}, 400, "invalid_request", "script_args[0]", ("NUL",)),
    ({"env_vars": {"A": "B"}}, 400, "invalid_request", "env_vars", ("list", "object")),
    ({"env_vars": ["A=1", "NAME"]}, 400, "invalid_request", "env_vars[1]", ("NAME=value",)),
    ({"env_vars": ["=1"]}, 400, "invalid_request", "env_vars[0]", ("NAME=value",)),
    ({"env_vars": ["A=\0"]}, 400, "invalid_request", "env_vars[0]", ("NAME=value",)),
    ('{"stdin": "\\ud800"}', 400, "invalid_request", "stdin", ("surrogate",)),
    ({"docker_image": "a b"}, 400, "invalid_request", "docker_image", ("python:3.12-slim",)),
    ({"docker_image": "Upper/CASE:1"}, 400, "invalid_request", "docker_image", ("python:3.12-slim",)),
    ({"docker_image": "a:b:c"}, 400, "invalid_request", "docker_image", ("python:3.12-slim",)),
    ({"docker_image": "../../x"}, 400, "invalid_request", "docker_image", ("python:3.12-slim",)),
    (
        {"config": {"memory_mb": "1024"}},
        400,
        "invalid_request",
        "config.memory_mb",
        ("whole number", "string"),
    ),
    ({"config": {"memory_mb": 64.5}}, 400, "invalid_request", "config.memory_mb", ("whole number",)),
    (
        {"config": {"memory_mb": True}},
        400,
        "invalid_request",
        "config.memory_mb",
        ("whole number", "boolean"),
    ),
    ({"config": {"memory_mb": 0}}, 400, "invalid_request", "config.memory_mb", ("0", "at least 16")),
    ({"config": {"memory_mb": -5}}, 400, "invalid_request", "config.memory_mb", ("-5", "at least 16")),
    ({"config": {"memory_mb": 2049}}, 400, "invalid_request", "config.memory_mb", ("2049", "at most 2048")),
    ({"config": {"memory_mb": HUGE}}, 400, "invalid_request", "config.memory_mb", ("at most 2048",)),
    ({"config": {"disk_mb": 0}}, 400, "invalid_request", "config.disk_mb", ("at least 1",)),
    ({"config": {"disk_mb": -1}}, 400, "invalid_request", "config.disk_mb", ("at least 1",)),
    ({"config": {"disk_mb": 4097}}, 400, "invalid_request", "config.disk_mb", ("4097", "at most 4096")),
    ({"config": {"timeout_seconds": 0}}, 400, "invalid_request", "config.timeout_seconds", ("at least",)),
    (
        {"config": {"timeout_seconds": -1}},
        400,
        "invalid_request",
        "config.timeout_seconds",
        ("-1", "at least"),
    ),
    (
        {"config": {"timeout_seconds": 601}},
        400,
        "invalid_request",
        "config.timeout_seconds",
        ("at most 600",),
    ),
    (
        {"config": {"timeout_seconds": HUGE}},
        400,
        "invalid_request",
        "config.timeout_seconds",
        ("at most 600",),
    ),
    ('{"config": {"timeout_seconds": 1e999}}', 400, "invalid_request", "config.timeout_seconds", ("inf",)),
    ({"config": {"cpu_shares": 0}}, 400, "invalid_request", "config.cpu_shares", ("at least 2",)),
    ({"config": {"cpu_shares": 2**40}}, 400, "invalid_request", "config.cpu_shares", ("at most 1024",)),
    ({"config": {"cpu_seconds": 0}}, 400, "invalid_request", "config.cpu_seconds", ("at least 0.01",)),
    ({"config": {"cpus": 0}}, 400, "invalid_request", "config.cpus", ("at least 0.01",)),
    ({"config": {"cpus": 3}}, 400, "invalid_request", "config.cpus", ("3", "at most 2")),
    (
        {"config": {"network_disabled": "no"}},
        400,
        "invalid_request",
        "config.network_disabled",
        ("true or false",),
    ),
    (
        {"entrypoint": "nowhere.py"},
        400,
        "invalid_request",
        "entrypoint",
        ("nowhere.py", "not in the archive"),
    ),
    ({"entrypoint": "/etc/passwd"}, 400, "invalid_request", "entrypoint", ("absolute", "relative")),
    ({"entrypoint": "../main.py"}, 400, "invalid_request", "entrypoint", ("outside", "relative")),
    ({"entrypoint": "a/../../main.py"}, 400, "invalid_request", "entrypoint", ("outside",)),
    ({"entrypoint": ""}, 400, "invalid_request", "entrypoint", ("path inside the archive",)),
    ({"entrypoint": "a\0b"}, 400, "invalid_request", "entrypoint", ("path inside the archive",)),
    ({"entrypoint": "."}, 400, "invalid_request", "entrypoint", ("directory",)),
    ("x" * (1024 * 1024 + 1), 413, "too_large", "metadata", ("1048576",)),
]


@pytest.mark.parametrize("route", ["sync", "submit"])
@pytest.mark.parametrize(
    ("metadata", "status", "code", "field", "words"),
    BAD_METADATA,
    ids=[repr(c[0])[:50] for c in BAD_METADATA],
)
async def test_bad_metadata_is_refused_and_leaves_nothing(
    narrow: Api,
    narrow_server: Server,
    route: str,
    metadata: Any,
    status: int,
    code: str,
    field: str,
    words: tuple[str, ...],
) -> None:
    before = await remains(narrow_server, narrow)
    answer = await getattr(narrow, route)(HELLO, metadata)
    assert (answer.status, answer.document["code"]) == (status, code), answer.document
    assert answer.document["field"] == field
    for word in words:
        assert word in answer.document["error"]
    assert len(answer.document["error"]) < 400
    assert await remains(narrow_server, narrow) == before


async def test_the_server_works_after_invalid_requests(narrow: Api) -> None:
    await check_works(narrow)


async def test_no_metadata_part_means_the_defaults(narrow: Api) -> None:
    answer = await narrow.sync(HELLO)
    assert (answer.status, answer.document["stdout"]) == (200, "hello\n")


async def test_limits_at_their_ceilings_are_taken(narrow: Api) -> None:
    config = {"memory_mb": 2048, "disk_mb": 4096, "timeout_seconds": 600, "cpus": 2, "cpu_shares": 1024}
    assert (await narrow.run("print('wide')", config=config))["stdout"] == "wide\n"
