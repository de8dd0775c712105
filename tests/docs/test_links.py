"""Check that links, headings and file names in the documentation exist."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import pages, prose_of, text_of
from tests.support.paths import ROOT

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
PATH = re.compile(
    r"`((?:tests|docs|pyexec|pyexec_client|pyexec_cli|golang-client|dev|nomad|benchmarks)/[\w./-]+"
    r"|\w+/test_\w+\.py)(?:::(\w+))?`"
)
INDEX = "llms.txt"
PAGES = [*pages(), INDEX, "CHANGELOG.md", "benchmarks/README.md", "tests/wire/README.md"]


def anchors(page: Path) -> Iterator[str]:
    """Yield the anchors of a page's headings, as GitHub generates them."""
    for title in re.findall(r"^#+ (.+)$", prose_of(str(page.relative_to(ROOT))), re.M):
        yield re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    dead = []
    for link in LINK.findall(prose_of(page)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_tests_exist(page: str) -> None:
    """Also check that the tests named after `::` exist."""
    gone = []
    for path, function in PATH.findall(prose_of(page)):
        # docs/threats.md writes the paths of tests relative to tests/.
        found = next((place / path for place in (ROOT, ROOT / "tests") if (place / path).exists()), None)
        if found is None or (function and not re.search(rf"def {function}\b", found.read_text())):
            gone.append(f"{path} {function}".strip())
    assert gone == []


def linked_pages(page: str) -> set[str]:
    """Return the files that a page links to, relative to the repository."""
    links = {link.partition("#")[0] for link in LINK.findall(prose_of(page)) if "://" not in link}
    return {os.path.normpath(Path(page).parent / link) for link in links if link}


def test_the_index_for_agents_links_to_every_page() -> None:
    assert {*pages(), "benchmarks/README.md", "CHANGELOG.md"} - linked_pages(INDEX) == set()


def test_readme_links_to_every_page_and_architecture_to_the_design_pages() -> None:
    design = {page for page in pages() if page.startswith("docs/design/")}
    others = {*pages(), "benchmarks/README.md", "CHANGELOG.md", INDEX} - design - {"README.md"}
    assert others - linked_pages("README.md") == set()
    assert design - linked_pages("docs/architecture.md") == set()


def test_readme_links_to_the_licence() -> None:
    assert "LICENSE" in LINK.findall(prose_of("README.md"))


def test_the_index_for_agents_has_the_form_of_llms_txt() -> None:
    """A title, a summary as a quotation, then sections that are lists of links, each with a description."""
    title, summary, *rest = text_of(INDEX).split("\n\n")
    assert title.startswith("# ")
    assert summary.startswith("> ")
    sections = [part.strip() for part in "\n\n".join(rest).split("## ")[1:]]
    assert len(sections) > 1
    for section in sections:
        name, links = section.split("\n\n")
        assert name
        assert [
            line for line in links.splitlines() if not re.fullmatch(r"- \[[^\]]+\]\(\S+\): .+", line)
        ] == []
