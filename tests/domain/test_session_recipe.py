"""Test the recipe of an environment for sessions: the caller's packages, and IPython."""

import pytest

from pyexec.domain.environment import Recipe, session_recipe


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        (None, "ipython\n"),
        ("six", "six\nipython\n"),
        ("six\\", "six\\\n\nipython\n"),
        ("ipykernel\nipython-genutils\n# ipython", "ipykernel\nipython-genutils\n# ipython\nipython\n"),
        ("six\nIPython==8.12.3", "six\nIPython==8.12.3"),
        ("ipython[all]\n", "ipython[all]\n"),
        ("ipython==8.12.3 \\\n    --hash=sha256:00\n", "ipython==8.12.3 \\\n    --hash=sha256:00\n"),
        ("  ipython  ", "  ipython  "),
    ],
)
def test_ipython_is_added_unless_the_caller_names_it(requirements: str | None, expected: str) -> None:
    """A second line without a hash would be rejected if other lines have one."""
    assert session_recipe(Recipe(requirements_txt=requirements)).requirements_txt == expected
