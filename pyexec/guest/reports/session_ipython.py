"""IPython's shell for the cells of a session."""

import importlib.util
import re
import signal
import sys
import warnings

from IPython.core.autocall import ExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import default
from traitlets.config import Config

from pyexec.guest.reports.channel import channel, load, without_own_frames
from pyexec.guest.reports.evaluator import PLAIN_TYPES

FOLDER = "/tmp/.ipython"
ESCAPES = re.compile("\x1b\\[[0-9;]*m")
CELLS_KEPT = 1000
"""The source of as many cells is kept for tracebacks."""
MAIN_THREAD_SIGNALS = (signal.SIGINT,)
PIP_COMMAND = re.compile(r"\s*(python[0-9.]* +-m +)?pip[0-9.]*(\s|$)")
NO_PIP = (
    "the sandbox has no pip: packages are installed when a session is opened. "
    "Open a session with these requirements (requirements_txt)"
)


class ValueHook(DisplayHook):
    """Keeps the value of a cell's last expression, as IPython does, but reports it instead of printing it."""

    def __call__(self, result=None):
        self.check_for_underscore()
        if result is None or self.quiet():
            return
        if channel.is_open():
            channel.send_result(repr(result).encode("utf-8", "backslashreplace"))
            if type(result) not in PLAIN_TYPES:
                load("bundles", "display").show_value(result)
        self.update_user_ns(result)
        self.fill_exec_result(result)


class CellCompiler(CachingCompiler):
    """Names the code of cells, so that it counts as the caller's in reported exceptions."""

    cell = 0

    def get_code_name(self, raw_code, transformed_code, number):
        return "cell %d" % self.cell


class Exit(ExitAutocall):
    """`exit` and `quit`, which take an exit code, as those of the interpreter do."""

    def __call__(self, code=None):
        self._ip.ask_exit(code)


class Shell(InteractiveShell):
    """A shell without terminal: no history file, plain tracebacks on stderr, commands with the cell's own output."""

    displayhook_class = ValueHook
    compiler_class = CellCompiler

    def init_history(self):
        super().init_history()
        self.history_manager.enabled = False

    def init_magics(self):
        super().init_magics()
        if importlib.util.find_spec("pip") is None:
            self.register_magic_function(refuse_pip, magic_name="pip")

    def system(self, command):
        if PIP_COMMAND.match(command) and importlib.util.find_spec("pip") is None:
            refuse_pip(command)
        self.system_raw(command)

    def showtraceback(self, *args, **options):
        error = sys.exc_info()[1]
        if not isinstance(error, SystemExit):
            hide_own_frames(error)
            if contains_group(error):  # IPython prints it with all frames, its own ones too
                error.__traceback__ = self.without_shell(error.__traceback__) or error.__traceback__
            super().showtraceback(*args, **options)

    def _showtraceback(self, etype, evalue, stb):
        text = ESCAPES.sub("", self.InteractiveTB.stb2text(stb))
        sys.stderr.write(text + "\n")

    def _format_exception_for_storage(self, exception, *args, **options):
        """Format an exception for the magic %notebook, as newer versions of IPython do after a cell."""
        try:
            return super()._format_exception_for_storage(exception, *args, **options)
        except Exception:  # its __str__ fails; otherwise, this failure would replace the exception
            text = load("exceptions").message_of(exception)
            return {"ename": type(exception).__name__, "evalue": text, "traceback": []}

    is_leaving = False
    """True after `exit()` or `quit()`: as in Jupyter, they end the interpreter. `sys.exit()` ends only the cell."""

    @default("exiter")
    def _exiter_default(self):
        return Exit(self)

    def ask_exit(self, code=None):
        self.is_leaving = True
        raise SystemExit(code)

    def enable_matplotlib(self, gui=None):
        """Do nothing: figures are shown anyway (see hooks.py)."""
        return gui, "inline"

    def run_interruptible(self, code, restore_builtins, begin):
        """Run a cell, and show the figures that it leaves. Return its exit code. Call `begin` as soon as an interrupt
        reaches the cell."""
        self.user_ns["get_ipython"] = self.get_ipython
        self.compile.cell += 1
        remember(self.compile.cell, code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MAIN_THREAD_SIGNALS)
        error = None
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            begin()
            result = self.run_cell(code, store_history=True)
            restore_builtins()
            error = result.error_before_exec or result.error_in_exec
            if "matplotlib._pylab_helpers" in sys.modules:
                load("hooks").show_open_figures()
        except:  # noqa: E722 without builtins, no other form works
            restore_builtins()
            error = raised = sys.exc_info()[1]
            if not isinstance(raised, SystemExit):
                # For example, code that is nested too deeply, or an interrupt while a cell begins.
                trace = self.without_shell(raised.__traceback__)
                sys.excepthook(type(raised), raised.with_traceback(trace), trace)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if error is None:
            return 0
        if isinstance(error, SystemExit):
            load("exceptions").report_none()
            return exit_code_of(error)
        error.__traceback__ = self.without_shell(error.__traceback__)
        # Without frames, the cell could not be compiled: for example, it has a null byte.
        load("exceptions").report(error, is_certain=error.__traceback__ is None)
        return 1

    def without_shell(self, trace):
        """Return a traceback from the first frame of a cell on."""
        while trace and trace.tb_frame.f_globals is not self.user_ns:
            trace = trace.tb_next
        return trace


def refuse_pip(_):
    raise UsageError(NO_PIP)


def hide_own_frames(error):
    """Cut the frames of this package out of a traceback, and out of those of the exceptions that led to it."""
    for _, each in load("exceptions").chain_of(error):
        trace = each.__traceback__
        while trace:
            trace.tb_next = without_own_frames(trace.tb_next)
            trace = trace.tb_next


def contains_group(error):
    """Return True if the error, or one in whose handling it was raised, is an exception group."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, load("exceptions").GROUP):
            return True
        seen.add(id(error))
        error = error.__context__
    return False


def remember(number, code):
    """Keep the lines of a cell for reported exceptions, and forget those of an old one."""
    sources = load("exceptions").sources
    sources["cell %d" % number] = code.encode("utf-8", "replace").split(b"\n")
    sources.pop("cell %d" % (number - CELLS_KEPT), None)
    sys.modules["linecache"].cache.pop("cell %d" % (number - CELLS_KEPT), None)


def exit_code_of(error):
    """Return the exit code that the interpreter would have, and print the message as it does."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF if abs(error.code) < 2**63 else 255
    sys.stderr.write("%s\n" % error.code)
    return 1


def load_tracebacks(shell):
    """Format a traceback, so that the first one takes no longer than others: after an interrupt, time is short."""
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        shell.InteractiveTB.structured_traceback(*sys.exc_info())


def ignore_hints():
    """Ignore what IPython warns of for its users at a terminal."""
    for message in ("To exit: use", "Output cache limit", "coroutine .InteractiveShell"):
        warnings.filterwarnings("ignore", message)


def create_shell():
    """Return the shell of this process."""
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.display_page = True
    shell = Shell.instance(config=config, ipython_dir=FOLDER)
    load_tracebacks(shell)
    sys.argv[:] = [""]
    return shell
