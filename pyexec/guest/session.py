"""The first process of the sandbox of an interpreter session. See docs/design/sessions.md.

It prepares the sandbox as supervisor.py does. After the plan it reads lines (session_lines.py) and runs cells, one
after another, until the server closes the session or no longer renews its lease."""

import binascii
import io
import json
import os
import select
import signal
import sys

from pyexec.guest.archive import BadArchive, unpack
from pyexec.guest.home import create_user_site, link_setup_home
from pyexec.guest.interpreter import IGNORED_SIGNALS
from pyexec.guest.seccomp import install_filter
from pyexec.guest.session_cell import Cell, register_streams
from pyexec.guest.session_cells import Cells
from pyexec.guest.session_files import Files
from pyexec.guest.session_frames import Frames
from pyexec.guest.session_limits import SessionMemory
from pyexec.guest.session_lines import LineReader
from pyexec.guest.supervisor import (
    create_archive,
    end_container_after,
    linger,
    report_code,
    set_dumpable,
    startup_archive,
)
from pyexec.guest.wire import (
    CHUNK,
    LEASE_SECONDS,
    PLAN,
    READY,
    REJECTED,
    UNPACKED,
    WORK,
    InputEnded,
    read_json,
    send,
    send_json,
)

IDLE_SECONDS = 3600.0
"""A sandbox that gets no plan ends after this time: its standard input stays open when its server dies."""
SERVER = 0
READS_AT_ONCE = 16
NO_INTERPRETER = "no_interpreter", "the image needs IPython for sessions, and its interpreter did not start: "
BAD_VARIABLES = "bad_variables", "it starts without these env_vars, but not with them: "
"""Codes and texts for a session that cannot open."""
FILE_COMMANDS = ("READ", "WRITE", "DATA", "DELETE", "CREDIT", "CANCEL")


class Session:
    """Runs one session, from READY to the end of the container."""

    def __init__(self, prestart, startup, reports, memory):
        self.frames = Frames()
        self.wakeup_read, self.wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self.wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        create_user_site()
        self.cells = Cells(self.frames, memory, create_archive(startup), reports)
        self.files = Files(self.frames)
        self.server_open = True
        self.code = []
        """The pieces of the code for the next cell."""
        if prestart:
            self.cells.start_interpreter(())
            self.cells.wait_until_ready()

    def serve(self):
        """Take the archive and the plan, then cells until the end."""
        send_json(READY, python=sys.version.split()[0])
        frames = io.open(SERVER, "rb", buffering=4 * CHUNK, closefd=False)
        try:
            unpack(frames, WORK)
            link_setup_home()
            create_user_site()
            send(UNPACKED)
            plan = read_json(frames, PLAN)
        except BadArchive as error:
            code = "disk_full" if error.disk_full else "bad_archive"
            send_json(REJECTED, code=code, message=str(error)[:1000])
            linger()
        except InputEnded:
            return
        end_container_after(LEASE_SECONDS)
        failure = self.cells.open(plan)
        if failure:
            starts_without_variables, reason = failure
            code, problem = BAD_VARIABLES if starts_without_variables else NO_INTERPRETER
            send_json(REJECTED, code=code, message=problem + reason)
            linger()
        self.frames.synchronize(plan["generation"], plan["token"])
        self.serve_lines(LineReader(plan["generation"]))

    def serve_lines(self, lines):
        while True:
            poller = select.poll()
            poller.register(self.wakeup_read, select.POLLIN)
            if self.server_open:
                poller.register(SERVER, select.POLLIN)
            register_streams(self.cells.interpreter, self.cells.cell, poller)
            for fd, _ in poller.poll(self.cells.check() * 1000 + 1):
                if fd == self.wakeup_read:
                    os.read(fd, 4096)
                    self.cells.reap()
                elif fd == SERVER:
                    self.read_available(lines)
                else:
                    self.cells.handle(fd)

    def read_available(self, lines):
        """Read the available input, up to a maximum, so that the limits of the cell are checked in between."""
        poller = select.poll()
        poller.register(SERVER, select.POLLIN)
        for _ in range(READS_AT_ONCE):
            self.read_lines(lines)
            if not self.server_open or not poller.poll(0):
                return

    def read_lines(self, lines):
        data = os.read(SERVER, CHUNK)
        self.server_open = bool(data)  # the engine has closed it: the session ends with its lease
        for command, payload, file_data in lines.feed(data):
            try:
                self.execute(command, payload, file_data, lines.generation)
            except (KeyError, TypeError, ValueError) as error:
                self.frames.send_event("error", message="%s: %s" % (command, error))

    def execute(self, command, payload, file_data, generation):
        if command in FILE_COMMANDS:
            self.files.handle(command, payload, file_data)
            return
        if command == "CODE":
            self.code.append(binascii.a2b_base64(payload))
            return
        request = json.loads(payload)
        if command == "CELL":
            code, self.code = self.code, []
            self.cells.begin(Cell(request, code))
        elif command == "ACK":
            self.frames.acknowledge(request["nonce"])
        elif command == "INTERRUPT":
            if self.cells.runs(request["nonce"]):
                self.cells.interrupt()
        elif command == "KILL":
            if self.cells.runs(request["nonce"]):
                self.cells.stop("killed")
        elif command == "RESTART":
            self.cells.restart("requested")
        elif command == "LEASE":
            end_container_after(LEASE_SECONDS)
        elif command == "SYNC":
            end_container_after(LEASE_SECONDS)
            self.files.stop()
            self.code = []
            self.frames.synchronize(generation, request["token"])


def main(prestart, startup, reports, filters):
    """Serve a session, from READY to the end of the container. The arguments are those of supervisor.py."""
    memory = SessionMemory()
    set_dumpable(0)
    install_filter(filters)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(WORK)
    end_container_after(IDLE_SECONDS)
    Session(prestart, startup_archive(startup), report_code(reports), memory).serve()
