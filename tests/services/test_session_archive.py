"""Test the tar of a session's files: it is complete, or the caller gets an error."""

import io
import tarfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext
from typing import Any, cast

import pytest
from attrs import define, field

from pyexec.domain.output_files import FileLimits, SkippedPattern, SkipReason
from pyexec.errors import InvalidRequest, Unavailable
from pyexec.sandbox.protocol import FileChunk, FileHeader, FilesCollected, FileSkipped
from pyexec.services.sessions.files import SessionFiles
from pyexec.services.sessions.owned_session import OwnedSession

FILE = (FileHeader("a", 3), FileChunk(b"abc"))
COMPLETE, TRUNCATED = FilesCollected(truncated=False), FilesCollected(truncated=True)


@define
class FakeSession:
    """A session whose sandbox lists and sends these frames. It is its own `use` and `sandbox`."""

    listed: Sequence[Any]
    sent: Sequence[Any] = field(default=())

    @property
    def use(self) -> "FakeSession":
        return self

    @property
    def sandbox(self) -> "FakeSession":
        return self

    def during(self) -> Any:
        return nullcontext()

    def list_files(self, *_: Any) -> AsyncGenerator[Any, None]:
        return frames(self.listed)

    def read_files(self, *_: Any) -> AsyncGenerator[Any, None]:
        return frames(self.sent)


async def frames(found: Sequence[Any]) -> AsyncGenerator[Any, None]:
    for frame in found:
        yield frame


async def archive(session: FakeSession) -> bytes:
    files = SessionFiles(FileLimits(bytes_max=1000))
    return b"".join([chunk async for chunk in files.archive(cast(OwnedSession, session), ".")])


async def test_a_complete_archive_has_all_files() -> None:
    data = await archive(FakeSession([FileHeader("a", 3), COMPLETE], [*FILE, COMPLETE]))
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        assert found.getnames() == ["a"]


async def test_links_that_are_not_followed_are_no_error() -> None:
    link = FileSkipped("link", SkipReason.LINK_OUTSIDE)
    assert await archive(FakeSession([FileHeader("a", 3), link, COMPLETE], [*FILE, link, COMPLETE]))


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([FileHeader("a", 3), FileSkipped("b", SkipReason.UNREADABLE), TRUNCATED], r"'b' \(unreadable\)"),
        (
            [
                FilesCollected(
                    truncated=True, skipped_patterns=(SkippedPattern(number=0, reason=SkipReason.TOO_MANY),)
                )
            ],
            "too_many",
        ),
    ],
)
async def test_files_that_cannot_be_returned_are_an_error_before_the_first_byte(
    listed: Sequence[Any], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as refused:
        await archive(FakeSession(listed, [*FILE, TRUNCATED]))
    assert refused.value.field == "glob"


async def test_files_that_vanish_meanwhile_break_the_transfer() -> None:
    with pytest.raises(Unavailable, match="archive is incomplete"):
        await archive(FakeSession([FileHeader("a", 3), COMPLETE], [*FILE, TRUNCATED]))
