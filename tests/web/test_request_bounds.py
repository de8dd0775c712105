"""Requests by HTTP to an application that records what it would run: what is optional, unknown, too long or too many.

No sandbox is needed, because each request is refused or recorded before anything runs."""

import io
import json
import tarfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from attrs import Factory, fields, frozen

from pyexec.domain.process_arguments import BYTES_PER_STRING, STRING_BYTES_MAX, TOTAL_BYTES_MAX
from pyexec.domain.spec import EvalRequest, Metadata, resolve
from pyexec.domain.tenants import Tenants
from pyexec.errors import QUOTE_LENGTH_MAX, InvalidRequest, Unavailable
from pyexec.json_parser import STRINGS_MAX, VALUES_MAX
from pyexec.metrics import NOOP_METER
from pyexec.services.uploads import Upload
from pyexec.settings_parser import read_settings
from pyexec.web.application import create_application
from pyexec.web.context import Context, ServerState, WebLimits
from tests.domain.test_spec import POLICY
from tests.support.archives import script

ID = f"exe_{0:032x}"
LONG = "x" * 3000


@frozen
class Recorder:
    """Takes uploads, and answers that the service is not available."""

    uploads: list[tuple[Upload, bytes]] = Factory(list)

    async def run(self, upload: Upload) -> str:
        data = b"".join([chunk async for chunk in upload.archive])
        self.uploads.append((upload, data))
        raise Unavailable("recorded")

    submit = run


@frozen
class Front:
    """A client of the application, and what the application would have run."""

    http: TestClient[Any, Any]
    recorder: Recorder

    async def refusal(self, method: str, path: str, status: int = 400, **options: Any) -> dict[str, str]:
        async with self.http.request(method, path, **options) as response:
            document = await response.json()
            assert response.status == status, document
            return document

    async def recorded(self, path: str, **options: Any) -> tuple[Upload, bytes]:
        await self.refusal("POST", path, 503, **options)
        return self.recorder.uploads.pop()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    recorder = Recorder()
    services: Any = Mock()
    context = Context(
        submissions=recorder,  # type: ignore[arg-type]
        executions=services,
        downloads=services,
        cluster=Mock(),
        sessions=services,
        peers=services,
        checks={},
        warnings=tuple,
        sandbox_reuse=False,
        limits=WebLimits(upload_bytes_max=10**8, metadata_bytes_max=10**7, idle_seconds=20),
        spool_dir=tmp_path,
    )
    exposition: Any = SimpleNamespace(content_type="text/plain", exposition=bytes)
    app = create_application(read_settings({}), ServerState("", context), NOOP_METER, exposition, Tenants())
    async with TestClient(TestServer(app)) as http:
        yield Front(http, recorder)


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        return tar.getnames()


def parts(metadata: str | bytes | None, *, tar_first: bool = False) -> aiohttp.FormData:
    form = aiohttp.FormData()
    if tar_first:
        form.add_field("tar", script("1"), filename="a.tar")
    if metadata is not None:
        form.add_field("metadata", metadata)
    if not tar_first:
        form.add_field("tar", script("1"), filename="a.tar")
    return form


@pytest.mark.parametrize("tar_first", [False, True])
@pytest.mark.parametrize("text", ["", " \r\n", "null", "{}", '{"stdin": null, "config": null}'])
@pytest.mark.parametrize("route", ["sync", "async"])
async def test_empty_metadata_means_the_defaults(
    front: Front, route: str, text: str, tar_first: bool
) -> None:
    upload, _ = await front.recorded(f"/api/v1/exec/{route}", data=parts(text, tar_first=tar_first))
    assert upload.metadata == Metadata()


async def test_null_means_left_out_in_eval(front: Front) -> None:
    nulls = dict.fromkeys(field.name for field in fields(EvalRequest))
    upload, archive = await front.recorded("/api/v1/eval", json={**nulls, "code": "1"})
    assert upload.metadata == Metadata(capture_displays=True)
    assert not upload.eval_last_expr
    assert names_in(archive) == ["main.py"]


async def test_an_empty_image_in_eval_means_none(front: Front) -> None:
    body = {"code": "1", "docker_image": "", "python_version": "3.11"}
    upload, _ = await front.recorded("/api/v1/eval", json=body)
    assert upload.metadata.docker_image == "python:3.11-slim"


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
async def test_an_identity_encoding_is_none(front: Front, encoding: str) -> None:
    await front.recorded("/api/v1/eval", json={"code": "1"}, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    ("method", "path", "unknown", "said"),
    [
        ("POST", "/api/v1/eval", "timeout", "this endpoint takes none"),
        ("POST", "/api/v1/exec/sync", "timeout", "this endpoint takes none"),
        ("POST", "/api/v1/exec/async", "wait", "this endpoint takes none"),
        ("GET", "/api/v1/executions", "stat", "did you mean 'status'?"),
        ("GET", "/api/v1/executions", "Limit", "did you mean 'limit'?"),
        ("GET", f"/api/v1/executions/{ID}", "wiat", "did you mean 'wait'?"),
        ("GET", f"/api/v1/executions/{ID}", "zzz", "this endpoint takes wait"),
        ("GET", "/api/v1/sessions", "limit", "this endpoint takes wait"),
        ("GET", f"/api/v1/executions/{ID}", LONG, "this endpoint takes wait"),
        ("DELETE", f"/api/v1/executions/{ID}", "force", "this endpoint takes none"),
        ("GET", f"/api/v1/executions/{ID}/logs", "folow", "did you mean 'follow'?"),
        ("GET", f"/api/v1/executions/{ID}/events", "folow", "did you mean 'follow'?"),
        ("GET", f"/api/v1/executions/{ID}/files", "path", "this endpoint takes none"),
        ("GET", f"/api/v1/executions/{ID}/files/a", "path", "this endpoint takes none"),
        ("GET", "/metrics", "name", "this endpoint takes none"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_and_the_nearest_named(
    front: Front, method: str, path: str, unknown: str, said: str
) -> None:
    document = await front.refusal(method, path, params={unknown: "1"})
    assert document["code"] == "unknown_field"
    assert document["field"][:QUOTE_LENGTH_MAX] == unknown[:QUOTE_LENGTH_MAX]
    assert said in document["error"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/api/v1/executions/{ID}?wait=0&wait=5", "wait"),
        ("/api/v1/executions?limit=5&status=failed&limit=5", "limit"),
        (f"/api/v1/executions/{ID}/logs?stream=stdout&stream=stderr", "stream"),
        (f"/api/v1/executions/{ID}/events?follow=0&follow=1", "follow"),
    ],
)
async def test_a_repeated_query_parameter_is_refused(front: Front, path: str, name: str) -> None:
    document = await front.refusal("GET", path)
    assert (document["code"], document["field"]) == ("invalid_request", name)
    assert "more than once" in document["error"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_health_checks_ignore_the_query(front: Front, path: str) -> None:
    async with front.http.get(f"{path}?nocache=1&nocache=2") as response:
        assert response.status == 200


BIG = STRING_BYTES_MAX


@pytest.mark.parametrize(
    ("field", "items", "refused"),
    [
        ("script_args", ["a" * BIG, "é" * (BIG // 2)], None),
        ("script_args", ["a", "a" * (BIG + 1)], "script_args[1]"),
        ("script_args", ["é" * (BIG // 2 + 1)], "script_args[0]"),
        ("env_vars", ["A=" + "a" * (BIG - 2)], None),
        ("env_vars", ["A=1", "B=" + "a" * (BIG - 1)], "env_vars[1]"),
        ("pre_commands", ["a" * BIG], None),
        ("pre_commands", ["a" * (BIG + 1)], "pre_commands[0]"),
        ("script_args", ["a" * (BIG - BYTES_PER_STRING)] * (TOTAL_BYTES_MAX // BIG), None),
        ("script_args", ["a" * BIG] * 16, "script_args[15]"),
        ("env_vars", ["A=" + "a" * (BIG - 2)] * 16, "env_vars[15]"),
    ],
)
def test_strings_that_no_process_can_get_are_refused(
    field: str, items: list[str], refused: str | None
) -> None:
    metadata = Metadata(**{field: tuple(items)})  # type: ignore[arg-type]
    if refused is None:
        resolve(metadata, POLICY)
        return
    with pytest.raises(InvalidRequest, match="may have at most") as caught:
        resolve(metadata, POLICY)
    assert caught.value.field == refused
    assert len(str(caught.value)) < 300


def files(count: int, name: str = "f%d.py") -> dict[str, Any]:
    return {"files": [{"name": name % number, "content": ""} for number in range(count)]}


async def test_the_number_of_files_in_eval_is_bounded(front: Front) -> None:
    _, archive = await front.recorded("/api/v1/eval", json=files(1000))
    assert len(names_in(archive)) == 1000
    document = await front.refusal("POST", "/api/v1/eval", json=files(1001))
    assert document["field"] == "files"
    assert "at most 1000" in document["error"]


async def test_the_number_of_strings_in_a_document_is_bounded(front: Front) -> None:
    """Python runs nothing else while it parses a document, and new names take the longest."""
    names = {f"k{number}": 1 for number in range(STRINGS_MAX)}
    body = io.BytesIO(json.dumps({"code": "", **names}).encode())
    headers = {"Content-Type": "application/json"}
    document = await front.refusal("POST", "/api/v1/eval", data=body, headers=headers)
    assert f"more than {STRINGS_MAX} strings" in document["error"]
    quotes = '"' * 3 * STRINGS_MAX
    _, archive = await front.recorded("/api/v1/eval", json={"code": quotes})
    assert len(names_in(archive)) == 1


@pytest.mark.parametrize("value", ["1", "[]", "{}"])
async def test_the_number_of_values_in_a_document_is_bounded(front: Front, value: str) -> None:
    """Lists and numbers take much more memory than their text, and Python runs nothing else while it makes them."""
    body = io.BytesIO(f'{{"code": "", "script_args": [{",".join([value] * VALUES_MAX)}]}}'.encode())
    headers = {"Content-Type": "application/json"}
    document = await front.refusal("POST", "/api/v1/eval", data=body, headers=headers)
    assert f"more than {VALUES_MAX} list items" in document["error"]
    text = r"\"\\" + "[{," * VALUES_MAX
    _, archive = await front.recorded("/api/v1/eval", json={"code": text, "script_args": ["[,"]})
    assert len(names_in(archive)) == 1


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/api/v1/eval", {"json": {"code": "", LONG: 1}}, 400),
        ("/api/v1/eval", {"json": {"code": "", "config": {LONG: 1}}}, 400),
        ("/api/v1/eval", {"json": {"code": "", "python_version": LONG}}, 400),
        ("/api/v1/eval", {"json": files(2, f"/{LONG}%d")}, 400),
        ("/api/v1/eval", {"json": files(2, f"{LONG}%d/")}, 400),
        ("/api/v1/eval", {"json": {"files": 2 * [{"name": LONG, "content": ""}]}}, 400),
        ("/api/v1/eval", {"params": {LONG: "1"}, "json": {"code": ""}}, 400),
        (f"/api/v1/{LONG}", {}, 404),
        (
            "/api/v1/exec/sync",
            {"data": b"x", "headers": {"Content-Type": f"multipart/form-data; {LONG}"}},
            400,
        ),
        ("/api/v1/exec/sync", {"data": parts("{}"), "headers": {"Content-Encoding": LONG}}, 415),
        ("/api/v1/exec/sync", {"data": aiohttp.FormData({LONG: "1"}), "multipart": True}, 400),
    ],
    ids=range(11),
)
async def test_an_error_repeats_at_most_100_characters_of_the_input(
    front: Front, path: str, options: dict[str, Any], status: int
) -> None:
    if options.pop("multipart", False):
        form = aiohttp.FormData()
        form.add_field(LONG, b"1", filename="f")
        options = {"data": form}
    document = await front.refusal("POST", path, status, **options)
    assert all("x" * (QUOTE_LENGTH_MAX + 1) not in text for text in document.values())
    assert len(json.dumps(document)) < 800


@pytest.mark.parametrize("path", [f"/api/v1/executions/{LONG}", f"/api/v1/executions/{LONG}/files/{LONG}"])
async def test_a_long_id_is_not_repeated_in_full(front: Front, path: str) -> None:
    document = await front.refusal("GET", path, 404)
    assert len(document["error"]) < 2 * QUOTE_LENGTH_MAX


@pytest.mark.parametrize("name", ["stream", "follow"])
async def test_a_long_parameter_is_not_repeated_in_full(front: Front, name: str) -> None:
    document = await front.refusal("GET", f"/api/v1/executions/{ID}/logs", params={name: LONG})
    assert len(document["error"]) < 2 * QUOTE_LENGTH_MAX
