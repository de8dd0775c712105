"""Environments: an image plus a caller's commands and packages."""

import hashlib
import json

from attrs import frozen

from pyexec.domain.requirements import parse_requirements

REPOSITORY = "pyexec-env"
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


def environment_key(base_id: str, recipe: Recipe) -> str:
    """Return the key of the environment that `recipe` builds from the image `base_id`: a hash of both, in hex."""
    content = [_FORMAT, base_id, recipe.pre_commands, recipe.requirements_txt]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
