from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.environment import Recipe
from pyexec.domain.requirements import Requirements, parse_requirements
from pyexec.errors import InvalidRequest


def parsed(text: str) -> Requirements:
    requirements = parse_requirements(text)
    assert requirements is not None
    assert requirements.text == text.removeprefix("\ufeff")
    return requirements


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n  # at all", "--no-index\n", " \\\n"])
def test_requirements_without_packages_are_none(text: str) -> None:
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
def test_requirements_are_pinned_if_every_version_is_exact(text: str, pinned: bool) -> None:
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
        ("--pypi-url https://example.org/simple", True),
        ("--pre -i https://example.org/simple", True),
        ("--only-binary=:all:", False),
    ],
)
def test_options_are_understood(line: str, own: bool) -> None:
    assert parsed(f"{line}\nrequests").own_index is own


REFUSED = """\
-e .
-e git+https://example.org/x.git
--editable .
-r file:///a.txt
-r
-r https:///a.txt
-c https://example.org/a b.txt
-i
-i --pre
--pre=1
--no-index x
--prefer-binary
--use-feature=fast-deps
six --config-settings a=b
six --global-option x
six --hash=md5:00
six --hash=sha256:
six --hash=sha256
-i "https://example.org
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
def test_unsupported_requirements_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_requirements(f"requests\n\n{line}")
    assert caught.value.field == "requirements_txt"
    assert "line 3" in str(caught.value)


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        requirements = parse_requirements(text)
        assert requirements is None or requirements.text == text.removeprefix("\ufeff")


SIX, IDNA = "--hash=sha256:00", "--hash=sha384:11"
HASHES_CHECKED = "--require-hashes"


def read(text: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the lines of the installer's file, and the options of its command line."""
    requirements = parsed(text)
    assert requirements.file_text == "".join(f"{line}\n" for line in requirements.lines)
    return list(requirements.lines), requirements.options


@pytest.mark.parametrize(
    ("text", "lines", "options"),
    [
        ("six", ["six"], ()),
        ("six  # why", ["six"], ()),
        ("\ufeffsix", ["six"], ()),
        ("\ufeff--pre\nsix", ["six"], ("--prerelease=allow",)),
        ("six\r\nidna\x0cattrs", ["six", "idna", "attrs"], ()),
        ("si\\\nx==1", ["six==1"], ()),
        ("six==1 \\\n# ends the line\nidna", ["six==1", "idna"], ()),
        (f"six==1 {SIX} \\\n {SIX}", [f"six==1 {SIX} {SIX}"], (HASHES_CHECKED,)),
        (f"six==1 {SIX}\nidna===2 {IDNA}", [f"six==1 {SIX}", f"idna===2 {IDNA}"], (HASHES_CHECKED,)),
        (f"six==1 ; python_version < '3' {SIX}", [f"six==1 ; python_version < '3' {SIX}"], (HASHES_CHECKED,)),
        (
            f"six==1 {SIX}\nidna ; python_version < '3'",
            [f"six==1 {SIX}", "idna ; python_version < '3'"],
            (HASHES_CHECKED,),
        ),
        (
            f"six==1 {SIX}\nhttps://example.org/a.whl#sha256=0123",
            [f"six==1 {SIX}", "https://example.org/a.whl#sha256=0123"],
            (HASHES_CHECKED,),
        ),
        (f"--require-hashes\nsix==1 {SIX}", [f"six==1 {SIX}"], (HASHES_CHECKED,)),
        ("--trusted-host example.org:80\nsix", ["six"], ("--allow-insecure-host=example.org:80",)),
        (
            "-i HTTP://E.org:3141/a\n-f http://localhost/w\n-f http://[::1]/w\n--trusted-host e.org:3141\nsix",
            [
                "--index-url HTTP://E.org:3141/a",
                "--find-links http://localhost/w",
                "--find-links http://[::1]/w",
                "six",
            ],
            ("--allow-insecure-host=e.org:3141",),
        ),
        ("-ihttps://example.org/a\nsix", ["--index-url https://example.org/a", "six"], ()),
        ("-i https://e.org/a\n-i https://e.org/b\nsix", ["--index-url https://e.org/b", "six"], ()),
        ("--pypi-url=https://e.org/a\nsix", ["--index-url https://e.org/a", "six"], ()),
        (
            "--extra-index-url=https://e.org/a?b=c\nsix",
            ["--extra-index-url https://e.org/a?b=c", "six"],
            ("--index-strategy=unsafe-best-match",),
        ),
        ("--no-index -fhttps://e.org/w\nsix", ["--no-index", "--find-links https://e.org/w", "six"], ()),
        ("--no-binary=six,IDNA\nsix", ["--no-binary six", "--no-binary idna", "six"], ()),
        ("--only-binary :all:\n--no-binary six\nsix", ["--no-binary six", "--only-binary :all:", "six"], ()),
        ("--no-binary six\n--only-binary six\nsix", ["--only-binary six", "six"], ()),
        ("--no-binary six\n--only-binary :all:\nsix", ["--only-binary :all:", "six"], ()),
        ("--no-binary six\n--no-binary :none:\nsix", ["six"], ()),
        ("-r https://e.org/r.txt", ["--requirement https://e.org/r.txt"], ()),
        ("-rhttps://e.org/r.txt\nsix", ["--requirement https://e.org/r.txt", "six"], ()),
        ("--constraint=https://e.org/c.txt\nsix", ["--constraint https://e.org/c.txt", "six"], ()),
    ],
)
def test_requirements_are_translated_for_the_installer(
    text: str, lines: list[str], options: tuple[str, ...]
) -> None:
    assert read(text) == (lines, options)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"six==1 {SIX}\nidna==2", 2, "every package needs a --hash, because line 1 has a --hash"),
        (f"idna==2\n\nsix==1 {SIX}", 1, "because line 3 has a --hash"),
        (f"six {SIX}", 1, "an exact version"),
        (f"six>=1 {SIX}", 1, "an exact version"),
        (f"six==1 {SIX}\nhttps://example.org/a.whl", 2, "a --hash"),
        (f"six==1 {SIX}\na @ https://example.org/a.whl", 2, "a --hash"),
        ("--require-hashes\nsix==1", 2, "because of --require-hashes"),
        ("six==1\n--require-hashes", 1, "because of --require-hashes"),
        ("--prefer-binary\nsix", 1, "use --only-binary"),
        ("--no-index six==1", 1, "'six==1' follows an option"),
        ("six@1.16.0", 1, "a URL must follow @; to select a version, write six==1.16.0"),
        ("six @ dist/six.whl", 1, "a local path is not available in the setup"),
        ("six==1 --no-binary six", 1, "--no-binary follows a package; write the option on a line of its own"),
        ("six\n-i http://u:p@e.org/a", 2, "use https://, or add --trusted-host e.org"),
        ("--extra-index-url http://e.org:81/a\n--trusted-host e.org:82\nsix", 1, "--trusted-host e.org"),
        ("-f http://127.e.org/w\nsix", 1, "--trusted-host 127.e.org"),
        ("-f http://e.org/w\nsix", 1, "--trusted-host e.org"),
        ("six --config-settings a=b", 1, "--config-settings is not supported"),
        ('six --global-option="x"', 1, "--global-option is not supported"),
        ("six -i https://example.org", 1, "-i follows a package; write the option on a line of its own"),
    ],
)
def test_requirements_that_pip_refuses_are_refused_with_their_line(text: str, line: int, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_requirements(text)
    assert f"line {line} of requirements_txt" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("option", ["-r", "-c", "--requirement", "--constraint"])
def test_a_file_by_url_makes_the_recipe_unpinned(option: str) -> None:
    text = f"six==1\n{option} https://example.org/x.txt"
    assert Recipe(requirements_txt="six==1").pinned
    assert not Recipe(requirements_txt=text).pinned


def test_constraints_alone_install_nothing() -> None:
    assert parse_requirements("-c https://example.org/x.txt") is None


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_an_undecoded_file_is_refused_with_its_reason(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="decode the file"):
        parse_requirements("six".encode(encoding).decode("latin-1"))
