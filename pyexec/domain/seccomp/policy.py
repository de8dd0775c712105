"""The system calls of programs and setups: an allowlist, with conditions on arguments.

docs/design/system-calls.md gives the reason for each group. A call in no group is unknown to the filter: it fails with
ENOSYS, as in an older kernel, so that C libraries fall back on older calls."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from pyexec.domain.seccomp.numbers import IOCTL_REQUESTS, PRCTL_OPTIONS

EPERM, ENOMEM, EINVAL, ENOTTY, ENOSYS = 1, 12, 22, 25, 38
ENOPROTOOPT, EPROTONOSUPPORT, EOPNOTSUPP, EAFNOSUPPORT = 92, 93, 95, 97
"""Linux's numbers. Those of the server's own system may differ."""
ALLOW: Final = "allow"
NO_EFFECT: Final = 0
"""As an error number: the call returns 0, and the kernel does nothing."""
Action = Literal["allow"] | int
"""Either `ALLOW`, or the error number with which the call fails."""
INT: Final = 0xFFFFFFFF
"""The bits of a 32-bit argument. The kernel ignores the others."""
POINTER: Final = 0xFFFFFFFFFFFFFFFF


@frozen
class Condition:
    """Holds if the bits `mask` of an argument are `value`; with `negated`, if they are not."""

    argument: int
    value: int
    mask: int = INT
    negated: bool = False
    """Only with a mask of 32 bits."""


@frozen
class Rule:
    """The action for calls whose arguments meet all conditions."""

    conditions: Sequence[Condition]
    action: Action


@frozen
class CallPolicy:
    """The first rule whose conditions hold decides; without one, `otherwise` applies."""

    rules: Sequence[Rule]
    otherwise: Action


def equals(argument: int, value: int) -> Condition:
    return Condition(argument, value)


def has_any(argument: int, bits: int) -> Condition:
    return Condition(argument, 0, mask=bits, negated=True)


def allow_only(*cases: Sequence[Condition], otherwise: Action) -> CallPolicy:
    return CallPolicy([Rule(case, ALLOW) for case in cases], otherwise)


def deny(*cases: Sequence[Condition], action: Action = EPERM) -> CallPolicy:
    return CallPolicy([Rule(case, action) for case in cases], ALLOW)


FILES = """
    access chdir chmod chown close copy_file_range creat dup dup2 dup3 faccessat faccessat2 fallocate
    fchdir fchmod fchmodat fchmodat2 fchown fchownat fgetxattr flistxattr flock fremovexattr
    fstat fstatfs ftruncate futimesat getcwd getdents getdents64 getxattr inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lstat
    mkdir mkdirat mknod mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir
    stat statfs statx symlink symlinkat tee truncate umask unlink unlinkat utime utimensat utimes
    write writev
"""
WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6 select
    signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
"""
SOCKETS = """
    accept accept4 bind connect getpeername getsockname listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto shutdown
"""
MEMORY = """
    brk membarrier mincore mlock mlock2 mlockall mprotect mremap munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect
"""
PROCESSES = """
    arch_prctl capget capset execve execveat exit exit_group fork get_robust_list getcpu getegid geteuid getgid
    getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid
    ioprio_get kill pidfd_open pidfd_send_signal process_vm_readv process_vm_writev ptrace rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_yield set_robust_list set_tid_address setfsgid setfsuid setgid setgroups setpgid
    setregid setresgid setresuid setreuid setsid setuid sigaltstack tgkill tkill vfork wait4 waitid
"""
TIME = """
    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep pause setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime times
"""
COMMUNICATION = """
    futex mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl
    semget semop semtimedop shmat shmctl shmdt
"""
SYSTEM = "getrandom restart_syscall sysinfo uname"
ALLOWED: Final = frozenset(
    " ".join((FILES, WAITING, SOCKETS, MEMORY, PROCESSES, TIME, COMMUNICATION, SYSTEM)).split()
)

FLUSHES: Final = ("fdatasync", "fsync", "sync", "sync_file_range", "syncfs")
"""Calls without effect. A program's files are in memory; on another file, such as /etc/hosts, which Docker mounts, they
would make the machine's disk write, at the cost of all."""

ATTRIBUTES: Final = ("fsetxattr", "lsetxattr", "setxattr")
"""Calls that fail in sandboxes as on a file system without attributes: an access control list of a file in memory takes
up to 64 KiB, which counts for no container. Setups may set attributes: packages have files with capabilities."""

PRIVILEGED_CALLS = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark finit_module
    get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages
    mount move_pages name_to_handle_at open_by_handle_at perf_event_open pidfd_getfd pivot_root process_madvise quotactl
    reboot request_key set_mempolicy setdomainname sethostname setns settimeofday swapoff swapon syslog umount2 unshare
    userfaultfd vhangup
"""
PRIVILEGED: Final = frozenset(PRIVILEGED_CALLS.split())
"""Calls that fail with EPERM. The kernel or Docker refuses most of them to any process without capabilities."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, TYPE_MASK = 1, 2, 3, 0xF
IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_ICMPV6 = 0, 1, 6, 17, 41, 58
SOL_SOCKET, SOL_NETLINK = 1, 270
SOCKET_LEVELS = (IPPROTO_IP, SOL_SOCKET, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_ICMPV6, SOL_NETLINK)
SO_ATTACH, SO_ZEROCOPY = (26, 50, 51, 52), 60
"""The first ones are SO_ATTACH_FILTER, _BPF, _REUSEPORT_CBPF and _REUSEPORT_EBPF."""
IGNORED_OPTIONS = (7, 8, 13)
"""SO_SNDBUF and SO_RCVBUF: the supervisor has to know how much memory a socket can hold (guest/sockets.py). SO_LINGER:
closing the socket would block the supervisor, or a thread of the kernel, if one of them closes it last
(docs/design/system-calls.md)."""
TCP_MD5SIG, TCP_ULP, TCP_MD5SIG_EXT, TCP_AO, UDP_ENCAP = 14, 31, 32, (38, 39, 40, 41), 100
IPV6_JOIN_GROUP, IPV6_JOIN_ANYCAST, IPV6_FLOWLABEL_MGR, MCAST_JOINS = 20, 27, 32, (42, 46, 48)
IPV6_HEADERS = (6, 57)
"""IPV6_2292PKTOPTIONS and IPV6_RTHDR."""
GROUP_SOURCES = (38, 39, 41, 43, 46, 48)
"""IP_BLOCK_SOURCE, IP_ADD_SOURCE_MEMBERSHIP, IP_MSFILTER, and those of both versions that begin with MCAST."""
REFUSED_OPTIONS = (
    *((SOL_SOCKET, option) for option in (*SO_ATTACH, SO_ZEROCOPY)),
    *((IPPROTO_TCP, option) for option in (TCP_MD5SIG, TCP_ULP, TCP_MD5SIG_EXT, *TCP_AO)),
    (IPPROTO_UDP, UDP_ENCAP),
    *((IPPROTO_IP, option) for option in GROUP_SOURCES),
    *(
        (IPPROTO_IPV6, option)
        for option in (*IPV6_HEADERS, IPV6_JOIN_GROUP, IPV6_JOIN_ANYCAST, IPV6_FLOWLABEL_MGR, *MCAST_JOINS)
    ),
)
"""Pairs of level and option: filters of packets, TLS in the kernel, and IPsec in UDP. Keys of TCP connections, IPv6
groups and sources of IPv4 groups, whose memory the kernel does not count. Flow labels: the machine has 4096, and they
outlive a program. Headers that a socket adds to its IPv6 packets, and reports of data that was sent without a copy: it
keeps up to 128 KiB of them, also not counted."""
TCP_ZEROCOPY_RECEIVE = 35
"""Maps received pages, which the kernel counts for no container, into the program's memory, without a limit."""
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
"""The second one lists sockets with their memory. Only the supervisor uses it, before it installs its filter."""
PR_SET_SECCOMP = 22
RLIMIT_CORE = 4
PRIO_USER, IOPRIO_WHO_PROCESS = 2, 1
MAP_HUGETLB, SHM_HUGETLB, MFD_HUGETLB = 0x40000, 0o4000, 4
MS_SYNC = 4
REFUSED_ADVICE = (12, 21, 100, 101)
"""MADV_MERGEABLE, MADV_PAGEOUT, MADV_HWPOISON and MADV_SOFT_OFFLINE."""
FADV_DONTNEED = 4
NEW_NAMESPACES = 0x7E020000
"""The flags of `clone` that create namespaces."""
CLONE_FILES, CLONE_THREAD = 0x400, 0x10000
CLOSE_RANGE_UNSHARE = 2
F_OFD_LOCKS = (37, 38)
"""F_OFD_SETLK and F_OFD_SETLKW."""
PR_SET_DUMPABLE = 4
PERSONALITIES = (0, 8, 0x20000, 0x20008, INT)
"""The default, 32-bit `uname`, the version 2.6, both, and the query. Docker allows the same."""
SUPERVISOR = 1
"""The process id of the supervisor."""


def _socket() -> CallPolicy:
    def internet(family: int, kind: int, *protocols: int) -> list[Sequence[Condition]]:
        sort = (equals(0, family), Condition(1, kind, mask=TYPE_MASK))
        return [(*sort, equals(2, protocol)) for protocol in protocols]

    allowed: list[Sequence[Condition]] = [
        (equals(0, AF_UNIX),),
        *internet(AF_INET, SOCK_STREAM, 0, IPPROTO_TCP),
        *internet(AF_INET, SOCK_DGRAM, 0, IPPROTO_UDP, IPPROTO_ICMP),
        *internet(AF_INET6, SOCK_STREAM, 0, IPPROTO_TCP),
        *internet(AF_INET6, SOCK_DGRAM, 0, IPPROTO_UDP, IPPROTO_ICMPV6),
        (equals(0, AF_NETLINK), equals(2, NETLINK_ROUTE)),
    ]
    raw = Condition(1, SOCK_RAW, mask=TYPE_MASK)
    refused = [
        Rule([equals(0, AF_INET), raw], EPERM),
        Rule([equals(0, AF_INET6), raw], EPERM),
        *(Rule([equals(0, family)], EPROTONOSUPPORT) for family in (AF_INET, AF_INET6, AF_NETLINK)),
    ]
    return CallPolicy([*(Rule(case, ALLOW) for case in allowed), *refused], EAFNOSUPPORT)


def _setsockopt() -> CallPolicy:
    def action(level: int) -> int:
        return EPERM if level == SOL_SOCKET else ENOPROTOOPT

    refused = [
        Rule([equals(1, level), equals(2, option)], action(level)) for level, option in REFUSED_OPTIONS
    ]
    ignored = [Rule([equals(1, SOL_SOCKET), equals(2, option)], NO_EFFECT) for option in IGNORED_OPTIONS]
    allowed = [Rule([equals(1, level)], ALLOW) for level in SOCKET_LEVELS]
    return CallPolicy([*refused, *ignored, *allowed], ENOPROTOOPT)


def _pages_of_sockets() -> Mapping[str, CallPolicy]:
    """Refuse what moves pages that a socket has received elsewhere. There, the kernel counts them for no container.

    A socket has no position, so the calls fail anyway if they name one. `splice` moves pages into a pipe, and so does
    `sendfile` from a socket."""
    no_positions = [Condition(argument, 0, mask=POINTER) for argument in (1, 3)]
    return {
        "getsockopt": deny([equals(1, IPPROTO_TCP), equals(2, TCP_ZEROCOPY_RECEIVE)], action=ENOPROTOOPT),
        "splice": deny(no_positions, action=EINVAL),
        "sendfile": deny([Condition(2, 0, mask=POINTER)], action=EINVAL),
    }


def _prctl() -> CallPolicy:
    ignored = Rule([equals(0, PR_SET_DUMPABLE)], NO_EFFECT)
    allowed = [Rule([equals(0, option)], ALLOW) for option in PRCTL_OPTIONS.values()]
    return CallPolicy([ignored, *allowed], EINVAL)


def _prlimit64() -> CallPolicy:
    of_supervisor, core = equals(0, SUPERVISOR), equals(1, RLIMIT_CORE)
    only_reads, no_old_value = Condition(2, 0, mask=POINTER), Condition(3, 0, mask=POINTER)
    return CallPolicy(
        [
            Rule([of_supervisor], EPERM),
            Rule([core, only_reads], ALLOW),
            Rule([core, no_old_value], NO_EFFECT),
            Rule([core], EPERM),
        ],
        ALLOW,
    )


def _ioprio_set() -> CallPolicy:
    own = (equals(0, IOPRIO_WHO_PROCESS), Condition(1, SUPERVISOR, negated=True))
    return allow_only(own, otherwise=EPERM)


_NOT_SUPERVISOR = deny([equals(0, SUPERVISOR)])
CONDITIONAL: Final[Mapping[str, CallPolicy]] = {
    "socket": _socket(),
    "socketpair": allow_only([equals(0, AF_UNIX)], otherwise=EOPNOTSUPP),
    "setsockopt": _setsockopt(),
    **_pages_of_sockets(),
    "ioctl": allow_only(*([equals(1, request)] for request in IOCTL_REQUESTS.values()), otherwise=ENOTTY),
    "mmap": deny([has_any(3, MAP_HUGETLB)], action=ENOMEM),
    "madvise": deny(*([equals(2, advice)] for advice in REFUSED_ADVICE), action=EINVAL),
    "fadvise64": deny([equals(3, FADV_DONTNEED)], action=NO_EFFECT),
    "shmget": deny([has_any(2, SHM_HUGETLB)], action=ENOMEM),
    "msync": deny([has_any(2, MS_SYNC)], action=NO_EFFECT),
    "memfd_create": deny([has_any(1, MFD_HUGETLB)], action=EINVAL),
    "clone": deny(
        [has_any(0, NEW_NAMESPACES)], [Condition(0, CLONE_THREAD, mask=CLONE_THREAD | CLONE_FILES)]
    ),
    "close_range": deny([has_any(2, CLOSE_RANGE_UNSHARE)], action=EINVAL),
    "fcntl": deny(*([equals(1, command)] for command in F_OFD_LOCKS), action=EINVAL),
    "personality": allow_only(*([equals(0, persona)] for persona in PERSONALITIES), otherwise=EPERM),
    "prctl": _prctl(),
    "prlimit64": _prlimit64(),
    "setrlimit": deny([equals(0, RLIMIT_CORE)], action=NO_EFFECT),
    "setpriority": deny([equals(1, SUPERVISOR)], [equals(0, PRIO_USER)]),
    "ioprio_set": _ioprio_set(),
    **dict.fromkeys(
        ("sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"), _NOT_SUPERVISOR
    ),
    **dict.fromkeys(FLUSHES, CallPolicy([], NO_EFFECT)),
    **dict.fromkeys(ATTRIBUTES, CallPolicy([], EOPNOTSUPP)),
}
"""Calls whose arguments decide."""


def policy_of(call: str) -> CallPolicy | None:
    """Return the policy of a call; None if the filter does not know the call."""
    if call in ALLOWED:
        return CallPolicy([], ALLOW)
    return CallPolicy([], EPERM) if call in PRIVILEGED else CONDITIONAL.get(call)
