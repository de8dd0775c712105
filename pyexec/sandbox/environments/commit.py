"""Save the container of a setup as an image."""

from pyexec.domain.environment import REPOSITORY, Recipe
from pyexec.errors import EngineError, SetupFailed
from pyexec.ports import SetupContainer

ENVIRONMENT_LABEL = "pyexec.environment"
"""For operators who list images. The server never reads labels of images, because any image can have them."""
_BAD_FILES, _NO_SPACE = "Error processing tar file", "no space left on device"
"""In Docker's messages about a commit: it cannot store the files, or the engine's disk is full."""
_TOO_DEEP = "max depth exceeded"
"""In Docker's message if the image would have too many layers: more than 125 in Docker 20.10."""


async def commit(container: SetupContainer, tag: str, key: str, recipe: Recipe) -> None:
    """Save the container. Raise `SetupFailed` if another attempt would fail, too: Docker cannot store the files that
    the setup has left, such as one with the name `.wh.`, or the image has too many layers."""
    try:
        await container.commit(REPOSITORY, tag, {ENVIRONMENT_LABEL: key})
    except EngineError as error:
        message = str(error)
        if _TOO_DEEP in message:
            reason = "the image has too many layers"
        elif _BAD_FILES in message and _NO_SPACE not in message:
            reason = "the files that it has left cannot be stored"
        else:
            raise
        text = f"the result of the setup cannot be saved: {reason}: {message}"
        field = "pre_commands" if recipe.pre_commands else "requirements_txt"
        raise SetupFailed(text, field=field) from error
