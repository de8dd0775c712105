"""Show the open figures of matplotlib, each once, and close them, as a notebook does."""

import sys
import weakref

from pyexec.guest.reports.channel import channel
from pyexec.guest.reports.display import display

shown: "weakref.WeakSet[object]" = weakref.WeakSet()
"""Figures that have been displayed."""


def show_all():
    """Show and close all open figures, unless this is a forked process."""
    figures = sys.modules["matplotlib._pylab_helpers"].Gcf
    if not channel.is_open():
        return
    for manager in figures.get_all_fig_managers():
        show(manager.canvas.figure)
    figures.destroy_all()


def show(figure):
    """Show a figure, unless it has been shown."""
    if figure not in shown:
        display(figure)
