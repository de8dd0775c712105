"""Apply the inline metadata of a script: install its dependencies, and choose an image whose Python fits."""

import anyio.to_thread
from attrs import evolve, frozen

from pyexec.domain.inline_metadata import Script, read_inline_metadata
from pyexec.domain.python_version import images_to_try, list_versions, may_satisfy
from pyexec.domain.spec import Policy
from pyexec.errors import quote
from pyexec.services.preparation import Preparation
from pyexec.services.uploads import Submission, Upload

ARCHIVE_BYTES_MAX = 128 * 1024
"""How much of an archive is read to find the metadata that determines the sandbox. A request holds these bytes in
memory before it has a slot, and its archive streams into the sandbox only after them."""


@frozen
class InlineRequirements:
    """Reads the inline metadata of requests that have no requirements of their own."""

    policy: Policy
    preparation: Preparation

    async def apply(self, submission: Submission, upload: Upload) -> Submission:
        """Return the submission with the dependencies and the image that its script asks for.

        Raises `InvalidRequest` if the metadata is malformed, if package installation is disabled, or if no image fits.
        `requirements_txt` in the request wins, unless it is blank. `pre_commands` run before the installation."""
        metadata = upload.metadata
        if not metadata.inline_requirements or (metadata.requirements_txt or "").strip():
            return submission
        script = await submission.archive.read_script(ARCHIVE_BYTES_MAX)
        if script is None:
            return submission
        found = await anyio.to_thread.run_sync(read_inline_metadata, script)
        if found is None:
            return submission
        if found.requirements_txt is not None:
            self.policy.check_setup(script.field)
        spec = evolve(
            submission.spec,
            requirements_txt=found.requirements_txt,
            requires_python=found.requires_python,
        )
        if found.requires_python is not None:
            image = await self._fitting_image(script, found.requires_python, metadata.docker_image)
            spec = evolve(spec, docker_image=image)
        return evolve(submission, spec=spec)

    async def _fitting_image(self, script: Script, requires_python: str, named: str | None) -> str:
        """Return the named image, or else the first allowed one, whose Python satisfies `requires_python`.

        An image with an unknown version is not rejected."""
        default_version = await self.preparation.python_of(self.policy.default_image)
        rejected: dict[str, str] = {}
        for image in images_to_try(self.policy, default_version) if not named else (named,):
            version = await self.preparation.python_of(image)
            if version is None or may_satisfy(requires_python, version):
                return image
            rejected[image] = version
        raise script.invalid(f"requires-python is {quote(requires_python)}, but {list_versions(rejected)}")
