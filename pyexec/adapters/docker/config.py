"""Requests of the Engine API that create containers. All rules that isolate a program are set here."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from pyexec.adapters.docker.etc_files import HOSTNAME
from pyexec.adapters.docker.setup_profile import setup_profile
from pyexec.ports import ContainerSpec, SetupSpec

DEPLOYMENT_LABELS = ("pyexec.deployment", "pyexec.engine", "pyexec.replica")
"""A container inherits the labels of its image. So every container gets a value of its own for these, if only an empty
one."""
UID = 1000
"""The user and the group of programs."""
_TMPFS = f"rw,exec,nosuid,nodev,uid={UID},gid={UID}"
_PAGE_BYTES = 4096


@frozen(kw_only=True)
class SecurityOptions:
    """Options of all containers: the name of the runtime, and a seccomp profile in JSON. None is Docker's default."""

    runtime: str | None = None
    seccomp_profile: str | None = None

    def apply(self, host: dict[str, Any]) -> None:
        """Add the options to the `HostConfig` of a container."""
        host["SecurityOpt"] = ["no-new-privileges:true"]
        if self.seccomp_profile is not None:
            host["SecurityOpt"].append(f"seccomp={self.seccomp_profile}")
        if self.runtime is not None:
            host["Runtime"] = self.runtime


def container_config(
    spec: ContainerSpec, security: SecurityOptions, mounts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the request for a sandbox, for version 1.41 of the API or later. `mounts` are files in /etc."""
    host: dict[str, Any] = {
        "AutoRemove": True,
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/work": f"{_TMPFS},mode=0755,{_tmpfs_size(spec.disk_bytes)}",
            "/tmp": f"{_TMPFS},mode=1777,{_tmpfs_size(spec.disk_bytes)}",  # noqa: S108 in the sandbox
            # Like Docker's own mount, but with a limit on the number of files: they outlive a program that the
            # kernel has killed, and could leave no memory for the supervisor.
            "/dev/shm": f"rw,nosuid,nodev,noexec,mode=1777,{_tmpfs_size(spec.shm_bytes)}",  # noqa: S108 in the sandbox
        },
        "NetworkMode": spec.network or "none",
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": str(spec.log_bytes), "max-file": "1", "compress": "false"},
        },
        "Ulimits": [_NO_CORES],
        "Mounts": list(mounts),
    }
    if spec.cpus is not None:
        host["NanoCpus"] = int(spec.cpus * 1e9)
    names = {"Hostname": HOSTNAME, "NetworkDisabled": spec.network is None}
    return _container(spec, f"{UID}:{UID}", host, security) | names


def _tmpfs_size(size: int) -> str:
    """Limit the number of files to the number of pages: empty files use kernel memory, too."""
    return f"size={size},nr_inodes={max(1, size // _PAGE_BYTES)}"


_NO_CORES = {"Name": "core", "Soft": 0, "Hard": 0}
_SETUP_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID"]
"""Installers set owners of files, and apt switches to a user of its own. Docker's default is twice as many."""


def setup_config(spec: SetupSpec, security: SecurityOptions) -> dict[str, Any]:
    """Return the request for a setup container: a sandbox, too, with no mounts, few capabilities and all limits.

    Its root is writable, and Docker does not remove it at its end, because it becomes an image."""
    host: dict[str, Any] = {
        "CapAdd": _SETUP_CAPABILITIES,
        "NetworkMode": spec.network,
        "LogConfig": {"Type": "none"},
        "Ulimits": [
            _NO_CORES,
            {"Name": "fsize", "Soft": spec.file_bytes_max, "Hard": spec.file_bytes_max},
        ],
    }
    profile = setup_profile(security.seccomp_profile)
    return _container(spec, "0:0", host, evolve(security, seccomp_profile=profile))


def _container(
    spec: ContainerSpec | SetupSpec, user: str, host: dict[str, Any], security: SecurityOptions
) -> dict[str, Any]:
    """Return the part of the request that sandboxes and setup containers share."""
    host |= {
        "CapDrop": ["ALL"],
        "IpcMode": "private",
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,
        "PidsLimit": spec.pids_max,
        "CpuShares": spec.cpu_shares,
    }
    security.apply(host)
    return {
        "Image": spec.image,
        "Entrypoint": [],
        "Cmd": list(spec.command),
        "User": user,
        "WorkingDir": "/",
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {**dict.fromkeys(DEPLOYMENT_LABELS, ""), **spec.labels},
        "HostConfig": host,
    }
