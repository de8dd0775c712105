"""Test /openapi.json and /docs: the document is valid and describes this server, and its examples are valid."""

import gzip
import re
import zipfile
from pathlib import Path
from shutil import copy, copytree
from subprocess import run
from sys import executable
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from pyexec import __version__
from pyexec.domain.spec import EvalRequest, Metadata
from pyexec.web.application import ROUTES
from pyexec.web.request_parser import parse_request
from tests.docs.blocks import served_pages
from tests.support.api import Api, api_of
from tests.support.paths import ROOT
from tests.support.server import Server
from tests.web.in_process import running_web

PAGES = {
    "/docs": "text/html; charset=utf-8",
    "/docs/": "text/html; charset=utf-8",
    "/docs/swagger-ui.css": "text/css; charset=utf-8",
    "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "/docs/start.js": "text/javascript; charset=utf-8",
    "/docs/favicon-32x32.png": "image/png",
    "/console/app.js": "text/javascript; charset=utf-8",
    "/console/editor/prism/languages/python.js": "text/javascript; charset=utf-8",
    "/console/icon.svg": "image/svg+xml",
    "/openapi.json": "application/json",
    "/openapi.json/": "application/json",
    "/llms.txt": "text/plain; charset=utf-8",
    "/README.md": "text/markdown; charset=utf-8",
    "/docs/api.md": "text/markdown; charset=utf-8",
    "/docs/design/pool.md/": "text/markdown; charset=utf-8",
}


async def document_of(api: Api) -> Any:
    answer = await api.get("/openapi.json")
    assert answer.status == 200
    return answer.document


async def test_the_document_is_valid_and_has_every_endpoint(api: Api) -> None:
    document = await document_of(api)
    validate(document)
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", __version__)
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told == {(method, re.sub(":[^}]*}", "}", path)) for method, path, _ in ROUTES}
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/api/v1/eval"]["post"]["responses"]


async def test_the_limits_are_those_of_the_server(narrow: Api) -> None:
    limits = (await document_of(narrow))["components"]["schemas"]["RequestedLimits"]["properties"]
    assert {name: limits["memory_mb"][name] for name in ("minimum", "default", "maximum")} == {
        "minimum": 16,
        "default": 1024,
        "maximum": 2048,
    }
    assert limits["timeout_seconds"]["maximum"] == 600
    for name in ("memory_mb", "disk_mb", "timeout_seconds", "cpus"):
        over = await narrow.eval({"code": "1", "config": {name: limits[name]["maximum"] + 1}})
        assert (over.status, over.document["field"]) == (400, f"config.{name}")


async def test_every_example_is_a_good_one(api: Api) -> None:
    document = await document_of(api)
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        for example in schema.get("examples", ()):
            Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"}).validate(example)
        for inner in schema["properties"].values():
            for example in inner.get("examples", ()):
                Draft202012Validator({**document, **inner}).validate(example)
    for cls in (Metadata, EvalRequest):
        assert schemas[cls.__name__]["examples"]
        for example in schemas[cls.__name__]["examples"]:
            parse_request(example, cls, what="example")


async def test_every_example_of_eval_runs(api: Api) -> None:
    for example in (await document_of(api))["components"]["schemas"]["EvalRequest"]["examples"]:
        answer = await api.eval(example)
        assert (answer.status, answer.document["exit_code"]) == (200, 0)


@pytest.mark.parametrize("path", PAGES)
async def test_pages_have_content_types_and_support_gzip_and_etags(server: Server, path: str) -> None:
    async with aiohttp.ClientSession(server.url, auto_decompress=False) as http:
        async with http.get(path, headers={"Accept-Encoding": "identity"}) as plain:
            assert (plain.status, plain.headers["Content-Type"]) == (200, PAGES[path])
            assert "Content-Encoding" not in plain.headers
            assert plain.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in plain.headers["Content-Security-Policy"]
            body = await plain.read()
        async with http.get(path, headers={"Accept-Encoding": "gzip"}) as packed:
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await packed.read()) == body
        async with http.get(path, headers={"If-None-Match": plain.headers["ETag"]}) as again:
            assert (again.status, await again.read()) == (304, b"")
        async with http.get(path, headers={"If-None-Match": '"another"'}) as other:
            assert other.status == 200


async def test_pages_contain_no_urls_of_other_hosts(server: Server) -> None:
    async with aiohttp.ClientSession(server.url) as http:
        for path in ("/docs", "/docs/start.js"):
            async with http.get(path) as page:
                assert "//" not in await page.text()


async def test_a_missing_page_is_a_404_in_json(api: Api) -> None:
    for path in ("/docs/nothing.js", "/docs/LICENSE", "/docs/..%2fstart.js"):
        answer = await api.get(path)
        assert (answer.status, answer.document["code"]) == (404, "not_found")


async def test_pages_need_no_token_and_document_the_tokens(tmp_path: Path) -> None:
    async with running_web(tmp_path, api_tokens="a-token") as guarded, api_of(guarded.url) as api:
        document = await document_of(api)
        for path in PAGES:
            async with api.session.get(path) as page:
                assert page.status == 200
        assert (await api.get("/api/v1/executions")).status == 401
        assert (await api.get("/docs/%2e%2e/api/v1/executions")).status == 401
    validate(document)
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            is_closed = path not in ("/health", "/ready")
            assert ("security" in operation, "401" in operation["responses"]) == (is_closed, is_closed)


def test_the_wheel_holds_the_pages(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy, because the build leaves files next to the sources
    for name in ("pyexec", "pyexec_cli"):
        copytree(ROOT / name, source / name, symlinks=True)
    for page in served_pages():
        (source / page).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / page, source / page)
    copy(ROOT / "pyproject.toml", source)
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(tmp_path)]
    run([executable, *build, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = ("index.html", "start.js", "swagger-ui.css.gz", "swagger-ui-bundle.js.gz", "LICENSE", "NOTICE")
    assert {f"pyexec/web/swagger/{name}" for name in wanted} <= names
    console = {
        str(path.relative_to(ROOT)) for path in (ROOT / "pyexec/web/console").rglob("*") if path.is_file()
    }
    assert console <= names
    assert {f"pyexec/web/pages/{page}" for page in served_pages()} <= names
