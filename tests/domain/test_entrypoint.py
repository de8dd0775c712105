"""The entrypoint that is detected in an archive: the cases of tests/wire/entrypoints.json."""

import json
import tarfile

import pytest

from pyexec.errors import InvalidRequest
from tests.domain.tars import Entry, check, tar
from tests.support.paths import WIRE

CASES = json.loads((WIRE / "entrypoints.json").read_text())


def entry(text: str) -> Entry:
    """Parse `file`, `folder/`, `link -> target` or `hard => target`."""
    for arrow, kind in ((" -> ", tarfile.SYMTYPE), (" => ", tarfile.LNKTYPE)):
        if arrow in text:
            name, target = text.split(arrow)
            return Entry(name, kind=kind, target=target)
    return Entry(text.rstrip("/"), kind=tarfile.DIRTYPE if text.endswith("/") else tarfile.REGTYPE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_entrypoint_of_an_archive(case) -> None:
    archive = tar(map(entry, case["members"]))
    if case["entrypoint"] is None:
        with pytest.raises(InvalidRequest, match=r"no \.py file"):
            check(archive)
    else:
        assert check(archive) == case["entrypoint"]


def test_a_named_entrypoint_may_be_behind_a_link() -> None:
    archive = tar(map(entry, ["v1/app.py", "now -> v1", "main.py"]))
    assert check(archive, entrypoint="now/app.py") == "now/app.py"
    with pytest.raises(InvalidRequest, match="not in the archive"):
        check(archive, entrypoint="now/other.py")


def test_no_number_of_links_keeps_a_regular_file_from_being_found() -> None:
    links = [f"{number}.py -> {'d/' * 30}{number}" for number in range(45)]
    assert check(tar(map(entry, [*links, "app.py"]))) == "app.py"
