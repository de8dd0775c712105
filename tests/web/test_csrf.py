"""Test cross-site requests: a browser can send them for any page, also to servers on its own machine."""

from pathlib import Path

import pytest

from tests.support.api import Api, api_of
from tests.support.archives import script
from tests.web.in_process import Recorded, ended, running_web

OTHERS = (
    {"Origin": "https://other.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
TOKEN = "a-token-of-a-test"


@pytest.mark.parametrize("headers", OTHERS, ids=str)
async def test_cross_site_requests_are_refused(api: Api, headers: dict[str, str]) -> None:
    before = (await api.get("/api/v1/executions")).document
    for answer in (
        await api.sync(script("print(1)"), headers=headers),
        await api.submit(script("print(1)"), headers=headers),
        await api.eval({"code": "1"}, headers=headers),
        await api.request(
            "DELETE", "/api/v1/executions/exe_00000000000000000000000000000000", headers=headers
        ),
    ):
        assert answer.status == 403, answer.document
        assert answer.document["code"] == "cross_site"
    assert (await api.get("/api/v1/executions")).document == before


async def test_same_origin_requests_are_accepted(api: Api) -> None:
    """The headers are those of a browser on this machine, on another machine, and behind a proxy that uses another host
    name."""
    for headers in (
        {"Origin": api.url},
        {"Origin": api.url, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://python.example", "Sec-Fetch-Site": "same-origin"},
    ):
        answer = await api.eval({"code": "print(1)"}, headers=headers)
        assert answer.status == 200, answer.document


async def test_cross_site_requests_with_a_token_are_accepted(tmp_path: Path) -> None:
    """A browser does not add the token by itself."""
    submissions = Recorded()
    async with running_web(tmp_path, submissions, api_tokens=TOKEN) as web, api_of(web.url) as api:
        submissions.execution = await ended(web)
        headers = {"Origin": "https://other.example", "Authorization": f"Bearer {TOKEN}"}
        assert (await api.eval({"code": "print(1)"}, headers=headers)).status == 200
