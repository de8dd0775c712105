"""The document in this process: which fields exclude each other, and that a server accepts its own examples."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from pyexec.domain.session_request import SessionRequest, resolve_session
from pyexec.domain.spec import EvalRequest, Metadata, resolve
from pyexec.errors import InvalidRequest
from pyexec.limits import policy_of, session_limits_of
from pyexec.settings import Settings
from pyexec.settings_parser import read_settings
from pyexec.web.application import ROUTES
from pyexec.web.handlers.submissions import _files_of
from pyexec.web.openapi.document import openapi_document, server_info
from pyexec.web.request_parser import parse_request

SERVERS: dict[str, dict[str, str]] = {
    "default": {},
    "narrow": {
        "max_timeout": "2",
        "default_timeout": "1",
        "max_memory_mb": "128",
        "default_memory_mb": "64",
        "max_disk_mb": "128",
        "default_disk_mb": "64",
        "max_cpus": "1",
        "setup_network": "none",
        "default_image": "python:3.13-slim",
        "allowed_images": "python:3.13-slim",
    },
}
SOME_FILES = [{"name": "main.py", "content": ""}]


def settings_of(name: str) -> Settings:
    return read_settings({f"PYEXEC_{key.upper()}": value for key, value in SERVERS[name].items()})


def server_of(name: str) -> tuple[dict[str, Any], Any]:
    settings = settings_of(name)
    return openapi_document(ROUTES, server_info(settings)), policy_of(settings, engine_cpus=4)


def metadata_of(body: dict[str, Any], schema: str) -> Metadata:
    """Parse a body as the handlers do; raise `InvalidRequest` if it is invalid."""
    if schema == "Metadata":
        return parse_request(body, Metadata, what="body")
    return _files_of(parse_request(body, EvalRequest, what="body"))[0]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("schema", ["EvalRequest", "Metadata", "SessionRequest"])
def test_a_server_accepts_its_own_examples(server: str, schema: str) -> None:
    """Check the examples of the type, and a body with the examples of all its fields."""
    document, policy = server_of(server)
    validate(document)
    schemas = document["components"]["schemas"]
    together = {
        name: field["examples"][0]
        for name, field in schemas[schema]["properties"].items()
        if "examples" in field
    }
    together["config"] = {
        name: field["examples"][0] for name, field in schemas["RequestedLimits"]["properties"].items()
    }
    for body in [*schemas[schema]["examples"], together]:
        Draft202012Validator({**document, "$ref": f"#/components/schemas/{schema}"}).validate(body)
        if schema == "SessionRequest":
            request = parse_request(body, SessionRequest, what="body")
            resolve_session(request, policy, session_limits_of(settings_of(server)))
        else:
            resolve(metadata_of(body, schema), policy)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "1"},
        {"code": ""},
        {"code": "1", "files": []},
        {"files": SOME_FILES},
        {"files": SOME_FILES, "code": None},
        {"code": "1", "files": SOME_FILES},
        {"code": None},
        {"files": []},
        {},
        {"code": "1", "docker_image": "python", "python_version": None},
        {"code": "1", "docker_image": None, "python_version": "3.12"},
        {"code": "1", "docker_image": "python", "python_version": "3.12"},
    ],
)
def test_the_document_and_the_server_agree_which_fields_exclude_each_other(body: dict[str, Any]) -> None:
    document, _ = server_of("default")
    validator = Draft202012Validator({**document, "$ref": "#/components/schemas/EvalRequest"})
    try:
        metadata_of(body, "EvalRequest")
    except InvalidRequest:
        assert not validator.is_valid(body)
    else:
        assert validator.is_valid(body)
