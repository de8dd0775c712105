"""Prepare the process of a run that reports: `display`, imports of matplotlib, plotly and IPython, and the end.

Nothing here costs time before the program uses it. See channel.py for what this module may import."""

import atexit
import builtins
import os
import sys
from _frozen_importlib import ModuleSpec

from pyexec.guest.reports.channel import EXCEPTION, channel, load

BACKEND = "pyexec_figures"
"""The name of figures.py as a backend of matplotlib."""
PLOTLY_RENDERER = "pyexec"
"""The name of the renderer of plotly."""
PARTS = ("bundles", "display")
script = sys.modules.get("__main__")
"""The module that runs the script. The program may replace it in `sys.modules`."""


def install():
    builtins.display = display
    sys.meta_path.insert(0, Finder())
    atexit.register(report_exception)


def display(*objects, **options):
    """Show objects in the result of this run, as IPython's `display` does in a notebook."""
    return load(*PARTS).display(*objects, **options)


def evaluate():
    """Run the script that `sys.argv` names, and report the value of its last expression."""
    load("evaluator").main()


def report_exception():
    """Report the exception that has ended the main thread, or that there is none.

    If that fails, because a method of the exception raises or memory is short, the server parses stderr instead."""
    error = getattr(sys, "last_value", None)
    try:
        if error is None:
            channel.send(EXCEPTION, b"")
        else:
            load("exceptions").report(error, script=script)
    except BaseException:  # noqa: S110  the interpreter would print it
        pass


class Finder:
    """Finds modules as usual, and runs a hook after the import of some. It provides IPython if it is missing."""

    def find_spec(self, name, path=None, target=None):
        if name == BACKEND:
            return ModuleSpec(name, Provider(load_backend))
        if name not in HOOKS:
            return None
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, "find_spec", None)
            spec = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                run_after_import(spec, HOOKS[name])
                return spec
        return provided_spec(name)


class Provider:
    """Creates modules that need no file."""

    def __init__(self, fill):
        self.fill = fill

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        self.fill(module)


def provided_spec(name):
    """Return the spec of a part of IPython; None if IPython itself is installed, or for parts that are not provided."""
    is_missing = name == "IPython" or isinstance(
        getattr(sys.modules.get("IPython"), "__loader__", None), Provider
    )
    if not is_missing or name not in PROVIDED:
        return None
    return ModuleSpec(name, Provider(fill_ipython), is_package=name in ("IPython", "IPython.core"))


def run_after_import(spec, hook):
    """Run the hook with the module when its loader has executed it."""
    loader = spec.loader
    if hook is None or not hasattr(loader, "__dict__"):
        return

    def exec_module(module):
        del loader.exec_module
        loader.exec_module(module)
        hook(module)

    loader.exec_module = exec_module


def select_backend(matplotlib):
    """Select figures.py, unless the caller has selected a backend. The environment does not change, so processes that
    the program starts use matplotlib's default."""
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = "module://" + BACKEND


def show_figures_at_end(_):
    """Show figures that are still open at the end, before matplotlib's own handler closes them."""
    atexit.register(show_open_figures)


def show_open_figures():
    if sys.modules["matplotlib._pylab_helpers"].Gcf.figs:
        load(*PARTS, "open_figures").show_all()


def show_plotly(renderers):
    """Make displays the default renderer of plotly, unless PLOTLY_RENDERER is set.

    Outside a notebook, plotly's default opens a browser or does nothing."""
    if os.environ.get("PLOTLY_RENDERER"):
        return

    class Renderer(renderers.ExternalRenderer):
        def render(self, figure):
            from plotly.graph_objects import Figure

            data, metadata = load("bundles").bundle_of(Figure(figure, skip_invalid=True))
            load(*PARTS).publish_display_data(data, metadata)

    renderers.renderers[PLOTLY_RENDERER] = Renderer()
    renderers.renderers.default = PLOTLY_RENDERER
    renderers.renderers.render_on_display = True


def load_backend(module):
    module.__dict__.update(vars(load(*PARTS, "open_figures", "figures")))


def replace_display(module):
    """Let functions of IPython report: without its shell they would print."""
    ours = load(*PARTS)
    for name in ("display", "update_display", "publish_display_data", "clear_output"):
        if name in vars(module):
            setattr(module, name, getattr(ours, name))


def fill_ipython(module):
    load(*PARTS, "ipython").fill(module)


PROVIDED = (
    "IPython",
    "IPython.core",
    "IPython.core.display",
    "IPython.core.display_functions",
    "IPython.display",
)
HOOKS = {
    "matplotlib": select_backend,
    "matplotlib.pyplot": show_figures_at_end,
    "plotly.io._renderers": show_plotly,
    "IPython": None,
    "IPython.core": None,
    "IPython.core.display": replace_display,
    "IPython.core.display_functions": replace_display,
    "IPython.display": replace_display,
}
