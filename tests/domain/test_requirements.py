from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.environment import Requirements, parse_requirements
from pyexec.errors import InvalidRequest


def parsed(text: str) -> Requirements:
    requirements = parse_requirements(text)
    assert requirements is not None
    assert requirements.text == text
    return requirements


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n  # at all", "--no-index\n", " \\\n"])
def test_what_asks_for_nothing_is_nothing(text: str) -> None:
    assert parse_requirements(text) is None


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("requests", False),
        ("requests==2.1", True),
        ("requests==2.*", False),
        ("requests===2.1", True),
        ("requests>=2,==2.1", True),
        ("requests[socks]==2.1 ; python_version > '3.8'  # why", True),
        ("requests==2.1\nflask", False),
        ("requests==2.1 \\\n  --hash=sha256:00 \\\n  --hash=sha256:11", True),
        ("requests @ https://example.org/requests.whl", False),
        ("https://example.org/requests-2.1-py3-none-any.whl", False),
        ("git+https://example.org/requests.git@v2#egg=requests", False),
    ],
)
def test_whether_every_version_is_named(text: str, pinned: bool) -> None:
    assert parsed(text).pinned is pinned


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("-i https://example.org/simple", True),
        ("-ihttps://example.org/simple", True),
        ("--index-url=https://example.org/simple", True),
        ("--extra-index-url https://example.org/simple", False),
        ("--find-links https://example.org/wheels", False),
        ("--pre", False),
        ("--only-binary=:all:", False),
    ],
)
def test_options_are_understood(line: str, own: bool) -> None:
    assert parsed(f"{line}\nrequests").own_index is own


REFUSED = """\
-e .
-e git+https://example.org/x.git
-r a.txt
-ra.txt
--requirement=a.txt
-c a.txt
./x
/x
~/x
file:///x
x @ file:///x
x.whl
x.tar.gz
-f /x
--target /x
x y
==1
""".splitlines()


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_work_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_requirements(f"requests\n\n{line}")
    assert caught.value.field == "requirements_txt"
    assert "line 3" in str(caught.value)


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        requirements = parse_requirements(text)
        assert requirements is None or requirements.text == text
