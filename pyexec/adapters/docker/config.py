"""The Engine API's request for a sandbox's container: every rule that holds a program stands here."""

from typing import Any

from attrs import frozen

from pyexec.adapters.docker.hosts import HOSTNAME
from pyexec.ports import ContainerSpec, SetupSpec

_TMPFS = "rw,exec,nosuid,nodev,uid=1000,gid=1000"
_PAGE_BYTES = 4096


@frozen(kw_only=True)
class Isolation:
    """What holds every container beside its limits: the engine's runtime by its name, and a seccomp profile as the
    text of its JSON; None is the engine's own default."""

    runtime: str | None = None
    seccomp_profile: str | None = None

    def complete(self, host: dict[str, Any]) -> None:
        """Adds it to a container's `HostConfig`."""
        host["SecurityOpt"] = ["no-new-privileges:true"]
        if self.seccomp_profile is not None:
            host["SecurityOpt"].append(f"seccomp={self.seccomp_profile}")
        if self.runtime is not None:
            host["Runtime"] = self.runtime


def container_config(
    spec: ContainerSpec, isolation: Isolation, hosts: dict[str, Any] | None
) -> dict[str, Any]:
    """The request's body, for Docker's API from 1.41 on. `hosts` is the mount that gives /etc/hosts to a container
    without network, which Docker itself is not to give one."""
    host: dict[str, Any] = {
        "AutoRemove": True,
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/work": f"{_TMPFS},mode=0755,{_room(spec.work_bytes)}",
            "/tmp": f"{_TMPFS},mode=1777,{_room(spec.tmp_bytes)}",  # noqa: S108 that of the sandbox
            # As Docker mounts it, but bounded in names, too: they outlive a program that the kernel has killed,
            # and would leave no memory to its supervisor.
            "/dev/shm": f"rw,nosuid,nodev,noexec,mode=1777,{_room(spec.shm_bytes)}",  # noqa: S108 that of the sandbox
        },
        "NetworkMode": spec.network or "none",
        "LogConfig": {
            "Type": "local",
            "Config": {"max-size": str(spec.log_bytes), "max-file": "1", "compress": "false"},
        },
        "Ulimits": [_NO_CORES],
    }
    if spec.cpus is not None:
        host["NanoCpus"] = int(spec.cpus * 1e9)
    if hosts is not None:
        host["Mounts"] = [hosts]
    names = {"Hostname": HOSTNAME, "NetworkDisabled": hosts is not None}
    return _container(spec, "1000:1000", host, isolation) | names


def _room(size: int) -> str:
    """A tmpfs is full, too, once it has as many files as pages: files without contents cost the kernel memory."""
    return f"size={size},nr_inodes={max(1, size // _PAGE_BYTES)}"


_NO_CORES = {"Name": "core", "Soft": 0, "Hard": 0}
_SETUP_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID"]
"""What installers need: files of any owner, and apt's own user without rights. Docker's default gives twice as many."""


def setup_config(spec: SetupSpec, isolation: Isolation) -> dict[str, Any]:
    """The request's body for a setup container, which is a sandbox, too: no mount, few rights, every limit.

    Its root is writable, because it is what an image is made of; it is not removed by itself for the same reason."""
    host: dict[str, Any] = {
        "CapAdd": _SETUP_CAPABILITIES,
        "NetworkMode": spec.network,
        "LogConfig": {"Type": "none"},
        "Ulimits": [
            _NO_CORES,
            {"Name": "fsize", "Soft": spec.file_bytes_max, "Hard": spec.file_bytes_max},
        ],
    }
    return _container(spec, "0:0", host, isolation)


def _container(
    spec: ContainerSpec | SetupSpec, user: str, host: dict[str, Any], isolation: Isolation
) -> dict[str, Any]:
    """What holds for both kinds."""
    host |= {
        "CapDrop": ["ALL"],
        "IpcMode": "private",
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,
        "PidsLimit": spec.pids_max,
        "CpuShares": spec.cpu_shares,
    }
    isolation.complete(host)
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
        "Labels": dict(spec.labels),
        "HostConfig": host,
    }
