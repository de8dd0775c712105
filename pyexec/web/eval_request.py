"""The simple API's JSON as the upload that it stands for."""

import io
import posixpath
import re
import tarfile
from collections.abc import Sequence

from pyexec.domain.spec import EvalRequest, Metadata, SourceFile
from pyexec.errors import InvalidRequest

PYTHON_MINOR_MIN = 8
_VERSION = re.compile(r"3\.(?P<minor>0|[1-9][0-9]?)", re.ASCII)


def upload_of(asked: EvalRequest) -> tuple[Metadata, bytes]:
    """An `eval` request as metadata and archive; raises `InvalidRequest` for what cannot be one."""
    if (asked.code is None) is (not asked.files):
        raise InvalidRequest("give either code or files", field="code")
    if asked.docker_image is not None and asked.python_version is not None:
        raise InvalidRequest("give either docker_image or python_version", field="python_version")
    _check_names(asked.files)
    files = {"main.py": asked.code} if asked.code is not None else {f.name: f.content for f in asked.files}
    metadata = Metadata(
        entrypoint=asked.entrypoint,
        docker_image=asked.docker_image if asked.python_version is None else _image_of(asked.python_version),
        requirements_txt=asked.requirements_txt,
        pre_commands=asked.pre_commands,
        stdin=asked.stdin,
        env_vars=asked.env_vars,
        script_args=asked.script_args,
        output_files=asked.output_files,
        config=asked.config,
    )
    return metadata, _tar_of(files)


def _image_of(python_version: str) -> str:
    version = _VERSION.fullmatch(python_version)
    if version is None or int(version["minor"]) < PYTHON_MINOR_MIN:
        raise InvalidRequest(
            f"python_version is {python_version[:60]!r}; write it like 3.12, and at least 3.{PYTHON_MINOR_MIN}",
            field="python_version",
        )
    return f"python:{python_version}-slim"


def _check_names(files: Sequence[SourceFile]) -> None:
    """What an archive would refuse later, in terms of this request."""
    seen: set[str] = set()
    for index, file in enumerate(files):
        name, where = file.name, f"files[{index}].name"
        if not name or "\0" in name or name.endswith("/"):
            raise InvalidRequest(
                f"{name!r} is no file's name: it must not be empty, hold a NUL or end with a slash",
                field=where,
            )
        if name.startswith("/") or ".." in name.split("/"):
            raise InvalidRequest(f"{name!r} lies outside /work; give a path relative to it", field=where)
        if posixpath.normpath(name) in seen:
            raise InvalidRequest(f"{name!r} is given twice", field=where)
        seen.add(posixpath.normpath(name))


def _tar_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            data = content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
