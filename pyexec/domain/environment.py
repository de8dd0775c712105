"""An environment: what an image becomes once a caller's commands and requirements are installed in it."""

import hashlib
import json

from attrs import frozen

from pyexec.domain.requirements import parse_requirements
from pyexec.domain.spec import Spec

REPOSITORY = "pyexec-env"
_FORMAT = 1
"""Part of every key: raised when the same recipe would be built in another way."""


@frozen(kw_only=True)
class Recipe:
    """How an environment comes to be: `pre_commands` in order, then the requirements, on top of an image."""

    pre_commands: tuple[str, ...] = ()
    requirements_txt: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it leads to the same today and tomorrow. What commands do nobody can tell."""
        requirements = parse_requirements(self.requirements_txt or "")
        return not self.pre_commands and (requirements is None or requirements.pinned)


def recipe_of(spec: Spec) -> Recipe | None:
    """What must be installed before `spec` can run; None when its image will do as it is."""
    if not spec.pre_commands and spec.requirements_txt is None:
        return None
    return Recipe(pre_commands=spec.pre_commands, requirements_txt=spec.requirements_txt)


def environment_key(base_id: str, recipe: Recipe) -> str:
    """The name of what `recipe` makes of the image with this id: a hash of all that decides it, in hex."""
    content = [_FORMAT, base_id, recipe.pre_commands, recipe.requirements_txt]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
