import pytest

from pyexec_client.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("rules", "ignored", "sent"),
    [
        (
            "",
            [".git", "a/.git/x", "__pycache__", "a/b/__pycache__/c.pyc", ".venv/bin", "x/node_modules"],
            [".github"],
        ),
        ("", [], ["git", "node_modules.py", "venv", "a.pyc", ".dockerignore"]),
        ("*.log", ["a.log", ".log"], ["sub/a.log", "a.logs"]),
        ("**/*.log", ["a.log", "sub/deep/a.log"], ["a.txt"]),
        ("/docs/", ["docs", "docs/a/b"], ["a/docs"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["docs", "docsx"]),
        ("docs/*", ["docs/a", "docs/a/b"], ["docs"]),
        ("a/**/z", ["a/z", "a/b/c/z"], ["a/b", "z"]),
        ("a/./b/../c", ["a/c"], ["a/b"]),
        ("file?.txt", ["file1.txt"], ["file.txt", "file12.txt", "file/.txt"]),
        ("[a-c].py", ["a.py", "c.py"], ["d.py", "-.py"]),
        ("[^a-c].py", ["d.py"], ["a.py"]),
        (r"\*.py", ["*.py"], ["a.py"]),
        ("a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt"]),
        ("# no\n\n  spaced  ", ["spaced"], ["# no", "no"]),
        ("\ufeffx", ["x"], []),
        (".", [], ["a", "b/c"]),
        ("*\n!keep", ["a", "b/c"], ["keep", "keep/x"]),
        ("docs\n!docs/README.md", ["docs", "docs/a"], ["docs/README.md"]),
        ("docs\n!docs/README.md\n*/README.md", ["docs/README.md"], []),
        ("! .venv", ["a/.venv"], [".venv", ".venv/bin"]),
        ("!**/node_modules", [".git"], ["node_modules", "a/node_modules/b"]),
    ],
)
def test_rules(rules, ignored, sent):
    parsed = IgnoreRules.parse(rules)
    assert [path for path in ignored if not parsed.ignores(path)] == []
    assert [path for path in sent if parsed.ignores(path)] == []


def test_only_directories_that_may_hold_an_exception_are_looked_into():
    rules = IgnoreRules.parse("docs\nbuild\n!docs/README.md")
    assert not rules.prunes("docs")
    assert rules.prunes("build")
    assert rules.prunes("doc")


@pytest.mark.parametrize("line", ["!", "[z-a]"])
def test_a_line_that_makes_no_sense_is_named(line):
    with pytest.raises(ValueError, match=r"\.dockerignore"):
        IgnoreRules.parse(line)
