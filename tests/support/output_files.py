"""Read the output files of an execution."""

import io
import tarfile
from typing import Any
from urllib.parse import quote

from yarl import URL

from tests.support.api import Api


async def download(api: Api, execution_id: str, path: str) -> bytes:
    """Return the contents of one file. Check the headers of the response."""
    url = URL(f"/api/v1/executions/{execution_id}/files/{quote(path)}", encoded=True)
    async with api.session.get(url) as response:
        body = await response.read()
        assert response.status == 200, body
        assert response.content_length == len(body)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.content_type == "application/octet-stream"
        return body


async def archive(api: Api, execution_id: str) -> dict[str, bytes]:
    """Return the contents of all files in the tar, by name. Check the headers of the response."""
    async with api.session.get(f"/api/v1/executions/{execution_id}/files") as response:
        body = await response.read()
        assert (response.status, response.content_type) == (200, "application/x-tar")
        assert response.content_length == len(body)
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert member.isreg()
            assert file is not None
            found[member.name] = file.read()
        return found


def paths(result: Any) -> list[str]:
    return [file["path"] for file in result["files"]]


def skipped(result: Any) -> dict[str, str]:
    """Return the reason for each skipped path and pattern."""
    return {each.get("path", each.get("pattern")): each["reason"] for each in result["files_skipped"]}
