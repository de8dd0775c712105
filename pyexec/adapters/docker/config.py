"""Requests of the Engine API that create containers. All rules that isolate a program are set here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Self

from attrs import evolve, frozen

from pyexec.adapters.docker.etc_files import HOSTNAME
from pyexec.adapters.docker.images import ImageVolumes
from pyexec.domain.sandbox_limits import (
    CLOSED_CONNECTIONS_MAX,
    MASKED_PATHS,
    MULTICAST_GROUPS_MAX,
    NETWORK_TCP_BUFFER_BYTES,
    RESOURCE_LIMITS,
    SETUP_MASKED_PATHS,
    SETUP_READONLY_PATHS,
    SETUP_RESOURCE_LIMITS,
    TCP_BUFFER_BYTES,
)
from pyexec.domain.spec import MEBIBYTE
from pyexec.ports import ContainerSpec, SetupSpec

DEPLOYMENT_LABELS = ("pyexec.deployment", "pyexec.engine", "pyexec.replica")
"""A container inherits the labels of its image. So every container gets a value of its own for these, if only an empty
one."""
_PAGE_BYTES = 4096
_PROFILE_ARCHITECTURES = ("amd64", "arm64")
"""The architectures, in Docker's words, of `pyexec.domain.seccomp.profile`."""
VOLUME_BYTES_MAX = 64 * MEBIBYTE
"""Size of the file system that a container has instead of a volume of its image."""
SETUP_FILES_MAX = 4096
"""Maximum number of in-memory files of a setup. Each can have two access control lists of 64 KiB, which no control
group counts."""
DOCKER_RESOLVER = ("docker",)
_NO_RESOLVER = "ndots:1x"
"""Docker does not start its resolver if this option is malformed, and writes the addresses of the name servers into
/etc/resolv.conf instead. The C library reads it as 1, its default. See docs/design/docker-adapter.md."""


@frozen(kw_only=True)
class SecurityOptions:
    """Options of all containers: the name of the runtime, and a seccomp profile in JSON for sandboxes and for setups.
    None is Docker's default.

    `replaceable` is true if Docker's default profile may be used where the engine cannot apply these. Containers with
    network ask the `name_servers`; if there are none, those of the engine's machine."""

    runtime: str | None = None
    sandbox_profile: str | None = None
    setup_profile: str | None = None
    replaceable: bool = False
    name_servers: Sequence[str] = ()
    sandbox_uids: range = range(0)
    """The user ids of programs, which no process of a setup may take."""

    def on_engine(self, architecture: str, *, has_seccomp: bool) -> Self:
        """Return the options for an engine: without replaceable profiles if it cannot apply them."""
        if not self.replaceable or (has_seccomp and architecture in _PROFILE_ARCHITECTURES):
            return self
        return evolve(self, sandbox_profile=None, setup_profile=None)

    def apply(self, host: dict[str, Any], profile: str | None) -> None:
        """Add the options to the `HostConfig` of a container with this profile."""
        if self.name_servers != DOCKER_RESOLVER:
            host["Dns"], host["DnsOptions"] = list(self.name_servers), [_NO_RESOLVER]
        host["SecurityOpt"] = ["no-new-privileges:true"]
        if profile is not None:
            host["SecurityOpt"].append(f"seccomp={profile}")
        if self.runtime is not None:
            host["Runtime"] = self.runtime


def container_config(
    spec: ContainerSpec,
    security: SecurityOptions,
    uid: int,
    etc_files: Sequence[Mapping[str, Any]],
    image: ImageVolumes,
) -> dict[str, Any]:
    """Return the request for a sandbox, for version 1.41 of the API or later.

    `uid` is the user and the group of its programs. `etc_files` are mounts. `image` is that of the spec: its name can
    get another image, with other volumes, before Docker creates the container."""
    own = f"rw,nosuid,nodev,uid={uid},gid={uid}"
    host: dict[str, Any] = {
        "AutoRemove": True,
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/work": f"{own},exec,mode=0755,{_tmpfs_options(spec.disk_bytes)}",
            "/tmp": f"{own},exec,mode=1777,{_tmpfs_options(spec.disk_bytes)}",  # noqa: S108 in the sandbox
            # Like Docker's own mount, but with a limit on the number of files: they outlive a program that the
            # kernel has killed, and could leave no memory for the supervisor.
            "/dev/shm": f"{own},noexec,mode=1777,{_tmpfs_options(spec.shm_bytes)}",  # noqa: S108 in the sandbox
            # Instead of a devpts: the machine has a few thousand pseudoterminals for all containers.
            "/dev/pts": "ro,nosuid,nodev,noexec,mode=0555,size=4096,nr_inodes=1",
        },
        "NetworkMode": spec.network or "none",
        "LogConfig": _log(spec),
        "Ulimits": [_ulimit(name, limit) for name, limit in RESOURCE_LIMITS.items()],
        "Sysctls": _network_settings(
            TCP_BUFFER_BYTES if spec.network is None else NETWORK_TCP_BUFFER_BYTES, MULTICAST_GROUPS_MAX
        ),
        "MaskedPaths": _masked(MASKED_PATHS),
        "Mounts": list(etc_files),
    }
    size = _tmpfs_options(min(spec.disk_bytes, VOLUME_BYTES_MAX))
    host["Tmpfs"] |= {
        path: f"{own},exec,mode=0755,{size}" for path in image.paths if path not in host["Tmpfs"]
    }
    if spec.cpus is not None:
        host["NanoCpus"] = int(spec.cpus * 1e9)
    names = {"Hostname": HOSTNAME, "NetworkDisabled": spec.network is None}
    security.apply(host, security.sandbox_profile)
    return _container(spec, image, f"{uid}:{uid}", host) | names | {"StdinOnce": not spec.attachable}


def _log(spec: ContainerSpec) -> Mapping[str, Any]:
    if spec.attachable:
        return {"Type": "none"}
    return {
        "Type": "local",
        "Config": {"max-size": str(spec.log_bytes), "max-file": "1", "compress": "false"},
    }


def _tmpfs_options(size: int, files_max: int | None = None) -> str:
    """Limit the number of files, by default to the number of pages: empty files use kernel memory, too."""
    return f"size={size},nr_inodes={max(1, files_max or size // _PAGE_BYTES)}"


def _ulimit(name: str, limit: int) -> Mapping[str, Any]:
    return {"Name": name, "Soft": limit, "Hard": limit}


def _network_settings(size_max: int, groups_max: int) -> Mapping[str, str]:
    """Return the settings of the container's network: least, initial and maximum sizes of TCP buffers, the number of
    closed connections, and the number of multicast groups of a socket."""
    return {
        "net.ipv4.igmp_max_memberships": str(groups_max),
        "net.ipv4.tcp_max_tw_buckets": str(CLOSED_CONNECTIONS_MAX),
        "net.ipv4.tcp_rmem": f"4096 131072 {size_max}",
        "net.ipv4.tcp_wmem": f"4096 16384 {size_max}",
    }


_SETUP_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP", "SETGID", "SETUID"]
"""Installers set owners of files, and apt switches to a user of its own. Docker's default is twice as many."""


def setup_config(spec: SetupSpec, security: SecurityOptions, image: ImageVolumes) -> dict[str, Any]:
    """Return the request for a setup container: a sandbox, too, with few capabilities and all limits.

    Its root is writable, and Docker does not remove it at its end, because it becomes an image. `image` is that of
    the spec. What a setup writes to its volumes is not part of the new image."""
    files_max = SETUP_FILES_MAX // (len(image.paths) + 1)
    options = f"rw,nosuid,nodev,{_tmpfs_options(VOLUME_BYTES_MAX, files_max)}"
    in_memory = dict.fromkeys(image.paths, f"{options},exec") | {"/dev/shm": f"{options},noexec,mode=1777"}  # noqa: S108
    host: dict[str, Any] = {
        "CapAdd": _SETUP_CAPABILITIES,
        "NetworkMode": spec.network,
        "LogConfig": {"Type": "none"},
        "MaskedPaths": _masked(SETUP_MASKED_PATHS),
        "ReadonlyPaths": _readonly_paths(),
        "Tmpfs": in_memory,
        "Ulimits": [
            *(_ulimit(name, limit) for name, limit in SETUP_RESOURCE_LIMITS.items()),
            _ulimit("fsize", spec.file_bytes_max),
        ],
        "Sysctls": _network_settings(NETWORK_TCP_BUFFER_BYTES, 0),
    }
    security.apply(host, setup_profile(security.setup_profile, security.sandbox_uids))
    return _container(spec, image, "0:0", host)


def _container(
    spec: ContainerSpec | SetupSpec, image: ImageVolumes, user: str, host: dict[str, Any]
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
    return {
        "Image": image.image_id,
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


@cache
def _masked(paths: Sequence[str]) -> Sequence[str]:
    """Return the known paths, and where else below /sys/devices this machine, which is usually the engine's, has disks.

    Controllers other than the first one are in `pci0000:40` or the like, and disks without PCI in `platform`."""
    found = {disk.resolve().parts[:4] for disk in Path("/sys/class/block").glob("*")}
    buses = {"/".join(("", *parts[1:])) for parts in found if parts[1:3] == ("sys", "devices")}
    return sorted({*paths, *buses} - {"/sys/devices/virtual"})


@cache
def _readonly_paths() -> Sequence[str]:
    """Return the known paths, and what else the kernel of this machine, which is usually the engine's, has in /proc."""
    found = [entry for entry in Path("/proc").glob("[!0-9]*") if not entry.is_symlink()]
    return sorted({*SETUP_READONLY_PATHS, *map(str, found)})


_NO_EFFECT, _EMFILE, _ENOSYS, _EOPNOTSUPP = 0, 24, 38, 95
"""Error numbers of Linux. With 0, the call returns 0, and the kernel does nothing."""
_RULES = (
    (("fallocate",), _EOPNOTSUPP),
    # Each such file can have an access control list of 64 KiB, and SETUP_FILES_MAX does not bound their number.
    (("memfd_create",), _ENOSYS),
    # The kernel limits these for each user id, by default to 128, and every setup runs as the machine's root.
    (("inotify_init", "inotify_init1"), _EMFILE),
    (("sched_setattr", "sched_setparam", "sched_setscheduler", "setpriority"), _NO_EFFECT),
)


_UID_ARGUMENTS = {"setuid": 1, "setfsuid": 1, "setreuid": 2, "setresuid": 3}
"""The calls that change user ids, with the number of their arguments. All are ids."""
_NOBODY, _ALL_BITS = 65534, 0xFFFFFFFF


@cache
def setup_profile(profile: str | None, sandbox_uids: range = range(0)) -> str | None:
    """Return a profile, as JSON, without allocation of space that is not written, changes of priorities, inotify, files
    of `memfd_create`, and the user ids of sandboxes.

    None is Docker's default profile, whose text is unknown, so it stays. Reasons: docs/design/environments.md."""
    if profile is None:
        return None
    document = json.loads(profile)
    added: list[dict[str, Any]] = [
        {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": number} for names, number in _RULES
    ]
    if len(sandbox_uids) > 1:  # sandboxes share a single id anyway
        added += _uid_rules(sandbox_uids)
    changed = {name for rule in added for name in rule["names"]}
    kept = [_without_calls(rule, changed) for rule in document.get("syscalls") or ()]
    rules = [rule for rule in kept if rule["names"]]
    return json.dumps({**document, "syscalls": [*rules, *added]})


def _uid_rules(refused: range) -> Iterator[dict[str, Any]]:
    """Yield the rules that allow these new user ids: ids below those of sandboxes, `nobody`, and -1 ("unchanged").

    The bound is the highest power of two up to the first id of a sandbox, so a mask can test it. With SCMP_CMP_LT
    instead, libseccomp needs minutes to compile the rules."""
    end = 1 << refused[0].bit_length() - 1
    allowed = [(_ALL_BITS & ~(end - 1), 0), (_ALL_BITS, _ALL_BITS)]
    if end <= _NOBODY and _NOBODY not in refused:
        allowed.append((_ALL_BITS, _NOBODY))
    for call, count in _UID_ARGUMENTS.items():
        for choice in product(allowed, repeat=count):
            arguments = [
                {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": mask, "valueTwo": value}
                for index, (mask, value) in enumerate(choice)
            ]
            yield {"names": [call], "action": "SCMP_ACT_ALLOW", "args": arguments}


def _without_calls(rule: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return a rule for all its system calls but these. An old rule has `name` instead of `names`."""
    present = rule.get("names") or [rule[key] for key in ("name",) if key in rule]
    others = {key: value for key, value in rule.items() if key != "name"}
    return {**others, "names": [name for name in present if name not in names]}
