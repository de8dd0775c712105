"""Environments: an image plus a caller's commands and packages."""

import hashlib
import json
import re
from collections.abc import Sequence

from attrs import evolve, frozen

from pyexec.domain.requirements import parse_requirements
from pyexec.errors import quote

REPOSITORY = "pyexec-env"
SESSION_REQUIREMENT = "ipython"
_NAMES_IPYTHON = re.compile(
    rf"^[ \t]*{SESSION_REQUIREMENT}[ \t]*(?:[=<>!~\[@;\\#]|$)", re.IGNORECASE | re.MULTILINE
)
_FORMAT = 3
"""Part of every key. Increase it when the same recipe is to be built in a different way."""


@frozen(kw_only=True)
class Recipe:
    """The steps that build an environment from an image: run `pre_commands` in order, then install the requirements."""

    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None

    @property
    def pinned(self) -> bool:
        """True if the recipe gives the same result at any time. The effect of commands is unknown."""
        requirements = parse_requirements(self.requirements_txt or "")
        return not self.pre_commands and (requirements is None or requirements.pinned)


def session_recipe(recipe: Recipe | None) -> Recipe:
    """Return the recipe of an environment for interpreter sessions: the packages of `recipe`, and IPython.

    Needed for images without IPython, whose sandbox refuses to open a session (`no_interpreter`). If the caller names
    IPython, for example with a version or a hash, that line counts."""
    recipe = recipe or Recipe()
    if _NAMES_IPYTHON.search(recipe.requirements_txt or ""):
        return recipe
    requirements = recipe.requirements_txt or ""
    if requirements:
        # The empty line ends a last line that would go on after its backslash.
        requirements += "\n\n" if requirements.endswith("\\") else "\n"
    return evolve(recipe, requirements_txt=f"{requirements}{SESSION_REQUIREMENT}\n")


def session_image_error(image: str, reason: str) -> str:
    """Return the message for a session whose image lacks IPython, which could not be installed."""
    return (
        f"sessions need IPython, which the image {quote(image)} lacks and this server could not install: {reason}; "
        f"use an image in which `python3 -c 'import IPython'` works"
    )


def environment_key(base_id: str, recipe: Recipe, index: str = "") -> str:
    """Return the key of the environment that `recipe` builds from the image `base_id`: a hash in hex.

    `index` is the URL of the operator's package index, without a password; empty: the installer's default."""
    content = [_FORMAT, base_id, recipe.pre_commands, recipe.requirements_txt]
    if index:
        content.append(index)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def build_tag(key: str, stored_bytes: int, nonce: str) -> str:
    """Return the tag of one build of an environment. It is unique, and contains the size.

    Each build keeps this name for as long as it exists. The newest one also has the key as a tag."""
    return f"{key}.{stored_bytes}.{nonce}"


def stored_bytes(names: Sequence[str]) -> int | None:
    """Return the size of an environment that has these names; None if none is from `build_tag`."""
    for tag in _tags(names):
        _, _, rest = tag.partition(".")
        size, dot, _ = rest.partition(".")
        if dot and size.isdecimal():
            return int(size)
    return None


def is_replaced(names: Sequence[str]) -> bool:
    """Return True if an image is only a build of an environment, and not the newest one."""
    tags = _tags(names)
    return len(tags) == len(names) > 0 and all("." in tag for tag in tags)


def _tags(names: Sequence[str]) -> Sequence[str]:
    """Return the tags of names in the repository of environments."""
    prefix = f"{REPOSITORY}:"
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
