"""Every parser of untrusted input takes linear time and little memory for the worst input at its size limit."""

import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest
from aiohttp.multipart import parse_content_disposition
from aiohttp.test_utils import make_mocked_request
from attrs import evolve
from multidict import CIMultiDict

from pyexec.domain.output_files import normalize_patterns
from pyexec.domain.requirement_lines import LINE_LENGTH_MAX
from pyexec.domain.requirements import LINES_MAX, TEXT_LENGTH_MAX, parse_requirements
from pyexec.domain.spec import Metadata, resolve
from pyexec.domain.tar_headers import EXTENDED_HEADER_MAX
from pyexec.domain.traceback import parse_traceback
from pyexec.errors import InvalidRequest
from pyexec.json_parser import parse_json
from pyexec.web.headers import EVENT_STREAM, accepts_gzip, prefers
from pyexec.web.request_parser import parse_request
from pyexec.web.schemas import WaitQuery, read_query
from pyexec.web.sse import parse_position
from tests.domain.tars import Entry, check_archive, tar
from tests.domain.test_spec import POLICY
from tests.support.cases import sampled
from tests.support.growth import FACTOR, assert_growth

HEADER = 8190
MEBIBYTE = 1024 * 1024
LARGE = 8 * MEBIBYTE

Parse = Callable[[str], object]


def check_requirements(text: str) -> None:
    parse_requirements.__wrapped__(text)


def extended(record: str) -> Parse:
    """Read an extended header that consists of this record, as often as it fits into the text's length."""

    def parse(text: str) -> None:
        body = record.encode() * (len(text) // len(record))
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(body)
        data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + tar([Entry("main.py")])
        for _ in range(10):
            with suppress(InvalidRequest):
                check_archive(data)

    return parse


def check_query(text: str) -> None:
    read_query(make_mocked_request("GET", f"/?{text}=1"), WaitQuery)


def check_accept(text: str) -> None:
    prefers(make_mocked_request("GET", "/", headers={"Accept": text}), EVENT_STREAM)


def check_metadata(text: str) -> None:
    parse_request(parse_json(text, what="metadata"), Metadata, what="metadata")


def check_images(image: str) -> None:
    resolve(Metadata(docker_image=image), evolve(POLICY, allowed_images=("*a*a*a*a*b", "[a-z]*[0-9]*-*")))


def fill(piece: str, size: int) -> str:
    return piece * (size // len(piece))


WORST: dict[str, tuple[Parse, int, Callable[[int], str]]] = {
    # name: parser, size limit, worst input of a size
    "requirements, spaces": (check_requirements, TEXT_LENGTH_MAX, lambda n: " " * n),
    "requirements, spaces then text": (check_requirements, TEXT_LENGTH_MAX, lambda n: f"{' ' * n}x"),
    "requirements, spaces in a line": (check_requirements, TEXT_LENGTH_MAX, lambda n: f"x{' ' * n}x"),
    "requirements, tabs and backslashes": (check_requirements, TEXT_LENGTH_MAX, lambda n: fill(" \\\n", n)),
    "requirements, hashes": (
        check_requirements,
        TEXT_LENGTH_MAX,
        lambda n: "six==1 " + fill("--hash=sha256:0 ", n),
    ),
    "requirements, hash words": (check_requirements, TEXT_LENGTH_MAX, lambda n: f"x {fill('--hash ', n)}"),
    "requirements, comments": (check_requirements, TEXT_LENGTH_MAX, lambda n: fill("#", n)),
    "requirements, packages": (check_requirements, 2 * LINES_MAX, lambda n: fill("x\n", n)),
    "requirements, extras": (check_requirements, LINE_LENGTH_MAX, lambda n: f"x[{fill('a,', n - 9)}a]"),
    "requirements, versions": (check_requirements, LINE_LENGTH_MAX, lambda n: f"x{fill('==1,', n - 9)}"),
    "requirements, dots": (check_requirements, LINE_LENGTH_MAX, lambda n: f"x=={fill('1.', n - 9)}1"),
    "requirements, brackets": (check_requirements, LINE_LENGTH_MAX, lambda n: f"x; {fill('(', n - 9)}"),
    "requirements, quotes": (check_requirements, LINE_LENGTH_MAX, lambda n: f"-i {fill(chr(34), n - 9)}"),
    "requirements, options": (check_requirements, LINE_LENGTH_MAX, lambda n: fill("--pre ", n)),
    "requirements, names": (
        check_requirements,
        LINE_LENGTH_MAX,
        lambda n: f"--no-binary {fill('a,', n - 20)}",
    ),
    "image, letters": (check_images, 512, lambda n: "a" * n),
    "image, dashes": (check_images, 512, lambda n: fill("a-", n)),
    "image, slashes": (check_images, 512, lambda n: fill("a/", n)),
    "env_vars, no equals sign": (
        lambda text: resolve(Metadata(env_vars=(text,)), POLICY),
        LARGE,
        lambda n: "a" * n,
    ),
    "entrypoint": (
        lambda text: resolve(Metadata(entrypoint=text), POLICY),
        LARGE,
        lambda n: fill("../a/", n),
    ),
    "output_files, stars": (
        lambda text: normalize_patterns([text] * 100),
        1024,
        lambda n: fill("**/", n) + "*",
    ),
    "output_files, brackets": (lambda text: normalize_patterns([text] * 100), 1024, lambda n: fill("[/", n)),
    "unknown field": (
        lambda text: parse_request({text: 1}, Metadata, what="metadata"),
        2 * MEBIBYTE,
        lambda n: "e" * n,
    ),
    "surrogate": (
        lambda text: parse_request({"stdin": text}, Metadata, what="metadata"),
        LARGE,
        lambda n: "é" * n + "\ud800",
    ),
    "metadata, depth": (check_metadata, LARGE, lambda n: "[" * n),
    "metadata, digits": (check_metadata, LARGE, lambda n: "1" * n),
    "metadata, unknown fields": (
        check_metadata,
        MEBIBYTE,
        lambda n: json.dumps({f"field{number}": 0 for number in range(n // 16)}),
    ),
    "metadata, repeated fields": (
        check_metadata,
        MEBIBYTE,
        lambda n: f'{{{fill(chr(34) + "a" + chr(34) + ": 0, ", n)}"b": 1}}',
    ),
    "metadata, items": (
        check_metadata,
        MEBIBYTE,
        lambda n: f'{{"script_args": [{fill(chr(34) * 2 + ", ", n)}1]}}',
    ),
    "traceback, frames": (parse_traceback, 64 * 1024, lambda n: fill('  File "/work/a", line 1, in f\n', n)),
    "traceback, spaces": (
        parse_traceback,
        64 * 1024,
        lambda n: f"Traceback (most recent call last):\n{' ' * n}",
    ),
    "traceback, dots": (
        parse_traceback,
        64 * 1024,
        lambda n: f'Traceback (most recent call last):\n  File "x", line 1\n{fill("a.", n)}!',
    ),
    "traceback, headings": (
        parse_traceback,
        64 * 1024,
        lambda n: fill("Traceback (most recent call last):\n", n),
    ),
    "traceback, groups": (parse_traceback, 64 * 1024, lambda n: "  +-" + "-" * n),
    "traceback, bare groups": (parse_traceback, 64 * 1024, lambda n: "  | E: " + fill("(1", n)),
    "PAX, short records": (extended("4 =\n"), EXTENDED_HEADER_MAX, lambda n: "x" * n),
    "PAX, paths": (extended("9 path=a\n"), EXTENDED_HEADER_MAX, lambda n: "x" * n),
    "PAX, digits": (extended("1"), EXTENDED_HEADER_MAX, lambda n: "x" * n),
    "Last-Event-ID": (parse_position, HEADER, lambda n: "1" * n),
    "Last-Event-ID, dots": (parse_position, HEADER, lambda n: "." * n),
    "Accept": (check_accept, HEADER, lambda n: fill("text/event-strea,", n)),
    "Accept, parameters": (check_accept, HEADER, lambda n: "a/b" + fill(";q=0", n)),
    "query, name": (check_query, HEADER, lambda n: "w" * n),
    "query, names": (check_query, HEADER, lambda n: fill("wait&", n)),
    "Content-Disposition, semicolons": (parse_content_disposition, HEADER, lambda n: f"form-data{';' * n}"),
    "Content-Disposition, quotes": (
        parse_content_disposition,
        HEADER,
        lambda n: f"form-data; name={chr(34) * n}",
    ),
    "Content-Disposition, backslashes": (
        parse_content_disposition,
        HEADER,
        lambda n: "form-data; name=" + chr(34) + chr(92) * n,
    ),
}


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
@sampled("which", WORST, every=4)
def test_parsing_takes_linear_time(which: str) -> None:
    parse, limit, worst = WORST[which]

    def attempt(text: str) -> None:
        with suppress(InvalidRequest, AssertionError):
            parse(text)

    assert_growth(partial(attempt, worst(limit // FACTOR)), partial(attempt, worst(limit)))


def test_only_the_beginning_of_a_header_chooses_a_response() -> None:
    """A request can have a megabyte of them, and parsing it would delay all others."""
    headers = CIMultiDict([("Accept", "application/json")] + [("Accept", "a," * 4000)] * 120)
    headers.add("Accept", "text/event-stream;q=1, application/json;q=0")
    assert not prefers(make_mocked_request("GET", "/", headers=headers), EVENT_STREAM)
    headers.popall("Accept")
    headers.extend([("Accept-Encoding", "a," * 4000)] * 120 + [("Accept-Encoding", "gzip")])
    assert not accepts_gzip(make_mocked_request("GET", "/", headers=headers))
