"""Save the container of a setup as an image."""

from pyexec.domain.environment import REPOSITORY, Recipe
from pyexec.errors import EngineError, SetupFailed
from pyexec.ports import SetupContainer

ENVIRONMENT_LABEL = "pyexec.environment"
"""For operators who list images. The server never reads labels of images, because any image can have them."""
_BAD_FILES, _NO_SPACE = "Error processing tar file", "no space left on device"
"""In Docker's messages about a commit: it cannot store the files, or the engine's disk is full."""


async def commit(container: SetupContainer, tag: str, key: str, recipe: Recipe) -> None:
    """Save the container. Raise `SetupFailed` if Docker cannot store the files that the setup has left, such as one
    with the name `.wh.`: another attempt would fail, too."""
    try:
        await container.commit(REPOSITORY, tag, {ENVIRONMENT_LABEL: key})
    except EngineError as error:
        if _BAD_FILES not in str(error) or _NO_SPACE in str(error):
            raise
        text = f"the files that the setup has left cannot be stored: {error}"
        field = "pre_commands" if recipe.pre_commands else "requirements_txt"
        raise SetupFailed(text, field=field) from error
