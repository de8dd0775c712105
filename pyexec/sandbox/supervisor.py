"""The first process of every sandbox: takes one program over its standard input, runs it, frames what it prints.

This file travels into the container as text (`python3 -I -S -c`), so it is self-contained: the standard library
only, of Python 3.8 and later, on Linux. Its wire format is defined here once; the host's side imports it.

A frame is one byte of kind, four bytes of length (big-endian), the payload. Towards the host a newline follows,
because Docker's log drivers keep whole lines; output is in base64, because every line costs them, and in pieces,
because the driver `local` loses the newline of a line over 16 KiB (seen with 20.10). The host
sends the archive in ARCHIVE frames, an empty one last; the program's standard input in one STDIN frame; then
GO. If the input ends before GO, the sandbox ends. After EXIT come the files that the run is to bring back, if any:
the code that finds them comes along with GO, and so does the code that evaluates a script's last expression.

What runs here is trusted only until GO: afterwards the program shares this container, and may be hostile. So the
supervisor cannot be traced or opened by it, nor be slowed down (seal.py), ignores its signals, dies after it when
memory runs out, and kills whatever it leaves behind. The host enforces every limit once more from outside."""

import binascii
import contextlib
import ctypes
import errno
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import tarfile
import time

ARCHIVE, STDIN, GO = b"A", b"I", b"G"
READY, UNPACKED, REFUSED, STARTED, STDOUT, STDERR, RESULT, EXIT = (
    b"R",
    b"U",
    b"F",
    b"S",
    b"1",
    b"2",
    b"E",
    b"X",
)
HEADER = struct.Struct("!cI")

WORK, TMP = "/work", "/tmp"
GO_SECONDS = 5.0
"""A go-ahead that comes later than this after the standard input is refused: its sender may have been
asleep so long that somebody else has already decided the execution's fate."""
GRACE_SECONDS = 5.0
LINGER_SECONDS = 120.0
"""How long an ended program's container stays for a host that has just restarted to read its last words."""
CHUNK = 64 * 1024
PIECE = 12000
"""What of output goes into one frame."""
PR_SET_DUMPABLE = 4
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
CHANGED_SIGNALS = (*IGNORED_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ)
"""The interpreter itself ignores the last two. A program must find them all as it would elsewhere."""
CGROUP = "/sys/fs/cgroup/"
FASTEST_ALLOCATION = 8 * 2**30
"""Bytes a second: how soon a program can use up what it has left decides how soon to look again."""
LOOKS_PER_SECOND, LOOKS_AT_ONCE, PAUSE_SECONDS = 1000, 1000, 0.01
"""A program that prints byte by byte, or rings for its children all the time, is looked at no more often than this,
and a pause is made when it is: what it has printed meanwhile goes into one frame. Both ends would have much to do."""
REAPED_AT_ONCE = 256
SECRET_BYTES = 16
RESULT_BYTES_MAX = 64 * 1024
"""What of a last expression's repr is kept."""


class ArchiveReader:
    """The payloads of ARCHIVE frames as one file to read from."""

    def __init__(self, frames):
        self.frames = frames
        self.left = 0
        self.ended = False

    def read(self, size):
        while not self.left and not self.ended:
            kind, self.left = read_header(self.frames)
            if kind != ARCHIVE:
                raise ValueError("expected the archive, not %r" % kind)
            self.ended = not self.left
        data = self.frames.read(min(size, self.left))
        self.left -= len(data)
        if not data and not self.ended:
            sys.exit(0)
        return data


def read_header(frames):
    """The next frame's kind and length. The end of the input ends the sandbox: nobody is there any more."""
    header = frames.read(HEADER.size)
    if len(header) < HEADER.size:
        sys.exit(0)
    return HEADER.unpack(header)


def read_frame(frames, kind):
    found, length = read_header(frames)
    if found != kind:
        raise ValueError("expected %r, not %r" % (kind, found))
    return frames.read(length)


def send(kind, payload=b""):
    data = memoryview(HEADER.pack(kind, len(payload)) + payload + b"\n")
    while data:
        data = data[os.write(1, data) :]


def send_data(kind, data):
    for start in range(0, len(data), PIECE):
        send(kind, binascii.b2a_base64(data[start : start + PIECE], newline=False))


def send_json(kind, **document):
    send(kind, json.dumps(document).encode())


def set_dumpable(value):
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def unpack(frames):
    """Unpacks the archive into /work as it streams in."""
    reader = ArchiveReader(frames)
    with tarfile.open(fileobj=reader, mode="r|", bufsize=CHUNK, copybufsize=16 * CHUNK) as tar:
        tar.extraction_filter = lambda member, path: member
        tar.extractall(WORK, numeric_owner=True)
    while reader.read(CHUNK):
        pass


class Memory:
    """What counts as the program's memory: everything charged to the container but the files in /work and /tmp,
    and but what was there before it started. Control groups version 1 and 2.

    What it reads stays open: opening takes memory of the container's, and while a program that the kernel has killed
    for want of it is still being taken apart, whoever asks for more is killed next."""

    def __init__(self, root=CGROUP):
        self.v1 = os.path.exists(root + "memory/memory.stat")
        home = root + "memory/" if self.v1 else root
        self.stat = os.open(home + "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
        self.events = os.open(
            home + ("memory.oom_control" if self.v1 else "memory.events"), os.O_RDONLY | os.O_CLOEXEC
        )
        self.peak = 0
        self.floor = 0
        self.kills = 0
        self.score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)

    def mark(self):
        """From here on counts as the program's."""
        self.floor = self.charged()
        self.kills = self.oom_kills()

    @contextlib.contextmanager
    def dying_first(self):
        """What is started meanwhile is what the kernel kills first when memory runs out: it inherits the score."""
        own = os.pread(self.score, 16, 0)
        os.pwrite(self.score, b"1000", 0)
        try:
            yield
        finally:
            os.pwrite(self.score, own, 0)

    def used(self):
        used = max(0, self.charged() - self.floor)
        self.peak = max(self.peak, used)
        return used

    def charged(self):
        stat = figures(self.stat)
        anonymous = stat["total_rss"] if self.v1 else stat["anon"]
        shared = stat.get("total_shmem", 0) if self.v1 else stat["shmem"]
        return int(anonymous) + max(0, int(shared) - stored(WORK) - stored(TMP))

    def oom_kills(self):
        return int(figures(self.events).get("oom_kill", 0))

    def was_exhausted(self):
        return self.oom_kills() > self.kills


def figures(fd):
    """The names and numbers in a control group's file, as they are now."""
    text = b""
    while True:
        part = os.pread(fd, CHUNK, len(text))
        if not part:
            return dict(line.split() for line in text.decode().splitlines())
        text += part


class Pace:
    """Keeps looks from being too many a second, a first burst aside."""

    def __init__(self):
        self.credit = LOOKS_AT_ONCE
        self.then = time.monotonic()

    def keep(self):
        now = time.monotonic()
        self.credit = min(LOOKS_AT_ONCE, self.credit + (now - self.then) * LOOKS_PER_SECOND) - 1
        self.then = now
        if self.credit < 0:
            time.sleep(PAUSE_SECONDS)


def stored(path):
    """Bytes of files on the tmpfs at `path`."""
    info = os.statvfs(path)
    return (info.f_blocks - info.f_bfree) * info.f_frsize


class Program:
    """The caller's program, from its start to the end of everything it started."""

    def __init__(self, stdin, memory):
        """Does all that can be done before the go-ahead comes: afterwards every step keeps the caller waiting."""
        self.stdin = stdin
        self.memory = memory
        self.status = None
        self.result = bytearray()
        self.secret = os.urandom(SECRET_BYTES)
        self.streams = {}
        self.ends = {}
        self.poller = select.poll()
        self.wake, self.woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poller.register(self.wake, select.POLLIN)
        self.open_stream(STDOUT)
        self.open_stream(STDERR)
        os.chdir(WORK)
        memory.mark()

    def open_stream(self, kind):
        read, self.ends[kind] = os.pipe()
        self.streams[read] = kind
        self.poller.register(read, select.POLLIN | select.POLLHUP)

    def open_result(self):
        """A socket that takes the last expression's repr, with the secret in it by which that is known."""
        read, end = (half.detach() for half in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        os.set_inheritable(end, True)
        os.write(read, self.secret)
        self.streams[read], self.ends[RESULT] = RESULT, end
        self.poller.register(read, select.POLLIN | select.POLLHUP)
        return end

    def run(self, go):
        self.left = go["output_bytes"]
        self.start(go)
        deadline = time.monotonic() + go["timeout"]
        pace = Pace()
        while self.status is None:
            now = time.monotonic()
            if now >= deadline:
                return self.stop("timeout")
            room = go["memory_bytes"] - self.memory.used()
            if room < 0:
                return self.stop("out_of_memory")
            look = min(deadline - now, max(0.01, min(0.25, room / FASTEST_ALLOCATION)))
            for fd, _ in self.poller.poll(look * 1000 + 1):
                if fd == self.wake:
                    os.read(fd, 4096)
                    self.reap()
                elif not self.copy(fd):
                    return self.stop("output_limit")
            pace.keep()
        return self.stop("exit")

    def start(self, go):
        """Spawns the program, which is far quicker than a fork: nothing of this process is copied. What it must
        not have of the supervisor goes by itself: descriptors close, and execution makes it dumpable."""
        command = [sys.executable]
        if go["evaluator"]:
            command += ["-c", go["evaluator"], str(self.open_result())]
        standard = (self.stdin, self.ends[STDOUT], self.ends[STDERR])
        try:
            with self.memory.dying_first():
                self.pid = os.posix_spawn(
                    sys.executable,
                    command + [go["entrypoint"]] + go["args"],
                    environment(go["env"]),
                    file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)],
                    setsid=True,
                    setsigdef=CHANGED_SIGNALS,
                )
        except (OSError, ValueError) as error:
            text = "the program could not be started: %s\n" % error
            os.write(self.ends[STDERR], text.encode("utf-8", "replace"))
            self.pid, self.status = 0, 126 << 8
        for fd in self.ends.values():
            os.close(fd)
        send(STARTED)

    def copy(self, fd):
        """Passes on what is there; False once the program has printed more than it may."""
        try:
            data = os.read(fd, CHUNK)
        except (ConnectionResetError, BlockingIOError):
            # The evaluator has ended and did not need the secret; or all have ended, and one had sent the other end
            # of this pipe into a socket that nobody has received it from.
            data = b""
        if not data:
            self.poller.unregister(fd)
            os.close(fd)
            del self.streams[fd]
            return True
        if self.streams[fd] == RESULT:
            if data.startswith(self.secret) and len(self.result) <= RESULT_BYTES_MAX:
                self.result += data[SECRET_BYTES:]
            return True
        over = len(data) > self.left
        data = data[: self.left]
        self.left -= len(data)
        send_data(self.streams[fd], data)
        return not over

    def reap(self):
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.note(pid, status)
        os.write(self.woken, b"\0")  # there may be more, and always more: the deadline comes first

    def note(self, pid, status):
        """A program that has asked to be traced only stops on a signal, and its parent hears of that, too."""
        if pid == self.pid and not os.WIFSTOPPED(status):
            self.status = status

    def stop(self, reason):
        """Kills all that is left, passes on what it had printed, and says how it ended."""
        kill_all()
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                break
            self.note(pid, status)
        for fd in list(self.streams):
            os.set_blocking(fd, False)
            while fd in self.streams:
                if not self.copy(fd):
                    reason = "output_limit"
                    break
        if (
            reason == "exit" and self.memory.was_exhausted()
        ):  # whichever of its processes the kernel has killed
            reason = "out_of_memory"
        if os.WIFSIGNALED(self.status):
            code = 128 + os.WTERMSIG(self.status)
        else:
            code = os.WEXITSTATUS(self.status)
        send_data(RESULT, self.result[:RESULT_BYTES_MAX])
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        send_json(
            EXIT,
            reason=reason,
            exit_code=code,
            signalled=os.WIFSIGNALED(self.status),
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 6),
            peak_memory_bytes=max(self.memory.peak, usage.ru_maxrss * 1024),
            result_truncated=len(self.result) > RESULT_BYTES_MAX,
        )


def environment(pairs):
    """The image's own environment, unbuffered output (so that it shows as it is printed and none is lost when the
    program is killed), and on top what the caller asked for."""
    variables = dict(os.environ, HOME=WORK, PYTHONUNBUFFERED="1")
    variables.update(pair.split("=", 1) for pair in pairs)
    return variables


def kill_all():
    """SIGKILL to every process of the container but this one, in one step that no fork can outrun."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def stdin_of(data):
    """A descriptor from which `data` can be read, and then the end of file."""
    if not data:
        return os.open(os.devnull, os.O_RDONLY)
    file = os.memfd_create("stdin")
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
    os.lseek(file, 0, os.SEEK_SET)
    return file


def end_everything_after(seconds):
    """Ends the container then, whatever else goes on. The program may send the alarm too; that alone does nothing."""
    limit = time.monotonic() + seconds

    def ring(*_):
        if time.monotonic() >= limit:
            kill_all()
            os._exit(1)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)


def main():
    """One program, from READY to the end of the container."""
    memory = Memory()
    set_dumpable(0)
    parts = {}
    exec(sys.argv[1], parts)
    parts["seal"]()
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    frames = io.open(0, "rb", buffering=4 * CHUNK, closefd=False)
    send_json(READY, python=sys.version.split()[0], memory_bytes=memory.charged())
    try:
        unpack(frames)
    except (tarfile.TarError, OSError, EOFError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        return send_json(REFUSED, code="disk_full" if full else "bad_archive", message=str(error)[:1000])
    send(UNPACKED)
    program = Program(stdin_of(read_frame(frames, STDIN)), memory)
    armed = time.monotonic()
    go = json.loads(read_frame(frames, GO))
    if time.monotonic() - armed > GO_SECONDS:
        return send_json(REFUSED, code="late", message="the go-ahead came too late")
    end_everything_after(go["timeout"] + GRACE_SECONDS)
    program.run(go)
    end_everything_after(LINGER_SECONDS)
    if go["collector"]:
        parts = {}
        exec(go["collector"], parts)
        parts["collect"](go["files"], send)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
