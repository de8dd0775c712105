"""Save the container of a setup as an image."""

from pyexec.domain.environment import REPOSITORY, Recipe
from pyexec.errors import CommitRefused, SetupFailed
from pyexec.ports import SetupContainer

ENVIRONMENT_LABEL = "pyexec.environment"
"""For operators who list images. The server never reads labels of images, because any image can have them."""


async def commit(container: SetupContainer, tag: str, key: str, recipe: Recipe) -> None:
    """Save the container. Raise `SetupFailed` if its content cannot be stored: another attempt would fail, too.

    For example, Docker cannot store a file with the name `.wh.`."""
    try:
        await container.commit(REPOSITORY, tag, {ENVIRONMENT_LABEL: key})
    except CommitRefused as error:
        text = f"the result of the setup cannot be saved: {error}"
        field = "pre_commands" if recipe.pre_commands else "requirements_txt"
        raise SetupFailed(text, field=field) from error
