"""The backend of matplotlib that `show` of a program that reports uses. It renders as the backend Agg does."""

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pyexec.guest.reports.open_figures import show as show_figure
from pyexec.guest.reports.open_figures import show_all


class FigureManager(FigureManagerBase):
    """Manages a figure of pyplot."""

    def show(self):
        show_figure(self.canvas.figure)


class FigureCanvas(FigureCanvasAgg):
    """Renders a figure."""

    manager_class = FigureManager


def show(*_, **__):
    """Show and close all open figures."""
    show_all()
