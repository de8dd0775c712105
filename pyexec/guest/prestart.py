"""Start the program's interpreter before the start signal. See docs/design/prestarted-interpreter.md.

While the sandbox is idle, an interpreter for `main.py` is started, and waits in startup.py. At the start signal it gets
the program's arguments and variables. A program that needs another interpreter gets a new one, as early as possible.

Part of the supervisor (see bootstrap.py)."""

import os
import re
import select
import sys

from pyexec.guest.interpreter import EVALUATE, Interpreter
from pyexec.guest.wire import WORK

SCRIPT = "main.py"
STARTUP_SECONDS = 5.0
"""An interpreter that does not wait for its script by then is discarded; something in its image delays it."""
PARAMETERS_MAX = 4096
"""More bytes may not fit into the pipe: the kernel makes pipes this small if a user has many."""
CODE_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""Variables with paths from which an interpreter loads code at its start."""
USER_SITE = ".local"
"""If this exists in /work, an interpreter loads code from it at its start (see home.py)."""
READ_AT_START = re.compile("PYTHON|LD_|LC_|MALLOC_|(LANG|TZ|TZDIR|HOME|GLIBC_TUNABLES|LOCPATH|GCONV_PATH)$")
"""Variables that the interpreter or the C library reads only when a process starts."""


def prestart_interpreter(memory, startup):
    """Return an interpreter that waits for `main.py` in /work, or None if that is not possible in this image."""
    if sys.implementation.name != "cpython" or not loads_only_from_image(os.environ):
        return None
    interpreter = PrestartedInterpreter([SCRIPT], [], memory, startup)
    try:
        interpreter.launch()
    except OSError:
        interpreter.close_program_ends()
    if interpreter.wait_until_ready():
        return interpreter
    interpreter.discard()
    return None


class PrestartedInterpreter(Interpreter):
    """An interpreter that waits for `main.py`, and for its arguments and variables."""

    image_runs_code = False
    is_loaded = True

    def wait_until_ready(self):
        """Return True when the interpreter waits; False if it has ended, or if the time is up."""
        poller = select.poll()
        poller.register(self.ready_pipe, select.POLLIN)
        if not poller.poll(STARTUP_SECONDS * 1000):
            return False
        state = os.read(self.ready_pipe, 1)
        self.image_runs_code = state == b"1"
        return state != b""

    def fits(self, plan):
        """Return True if this interpreter would run the program as a new one would. If so, keep the parameters."""
        if plan["entrypoint"] != SCRIPT or plan["evaluate"] or self.has_exited() or not starts_early(plan):
            return False
        if plan["env"] and self.image_runs_code:
            return False
        strings = plan["args"] + plan["env"]
        if any("\0" in string for string in strings) or any(pair[0] == "=" for pair in plan["env"]):
            return False  # a new interpreter cannot start either; its error goes to the caller
        try:
            self.parameters = os.fsencode("\0".join([str(len(plan["args"]))] + strings))
        except ValueError:
            return False
        return len(self.parameters) <= PARAMETERS_MAX


def starts_early(plan):
    """Return True if an interpreter for this program can start before the start signal.

    Until that signal, it must not load code of the caller. A ~/.local of the caller, and variables that an interpreter
    reads when it starts, could make it do so."""
    names = (pair.split("=", 1)[0] for pair in plan["env"])
    return not os.path.lexists(USER_SITE) and not any(map(READ_AT_START.match, names))


def prepare_interpreter(plan, prestarted, memory, startup, reports):
    """Return an interpreter for the program: the prestarted one if it fits, else a new one.

    A new one starts at once if that is allowed, and if the prestarted one has shown that startup.py works here.
    `reports` is the code with which a program reports (see reports/channel.py)."""
    if prestarted is not None and prestarted.fits(plan):
        open_or_close_channel(plan, prestarted, reports)
        return prestarted
    name = plan["entrypoint"]
    script = "./" + name if name.startswith("-") else name  # otherwise Python would parse it as an option
    arguments = [script] + plan["args"]
    if plan["evaluate"]:
        arguments = ["-c", EVALUATE] + arguments
    interpreter = Interpreter(arguments, plan["env"], memory, startup)
    open_or_close_channel(plan, interpreter, reports)
    if prestarted is not None:
        if starts_early(plan):
            try:
                interpreter.launch()
            except (OSError, ValueError):
                pass  # `start_program` tries it again, and reports the error
        prestarted.discard()  # takes a millisecond or two, in which the new one already starts
    return interpreter


def open_or_close_channel(plan, interpreter, reports):
    if plan["display_bytes"] is None:
        interpreter.streams.close_channel()
    else:
        interpreter.streams.open_channel(plan["display_bytes"], reports)


def loads_only_from_image(variables):
    """Return False if a variable lets an interpreter load code from /work at its start.

    A relative path does that, too, because /work is the current directory."""
    return all(
        os.path.isabs(path) and not (os.path.realpath(path) + "/").startswith(WORK + "/")
        for name in CODE_VARIABLES
        if variables.get(name)
        for path in re.split("[:; ]" if name.startswith("LD_") else ":", variables[name])
    )
