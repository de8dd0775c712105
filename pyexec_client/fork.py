"""Reset objects in the child process after a fork."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Resettable(Protocol):
    """An object that holds threads or connections, which belong to the parent process."""

    def after_fork(self) -> None:
        """Forget them."""


_registered: weakref.WeakSet[Resettable] = weakref.WeakSet()


def reset_after_fork(resettable: Resettable) -> None:
    """Call `after_fork` of this object in each child process, as long as the object exists."""
    _registered.add(resettable)


def _reset_all() -> None:
    for resettable in tuple(_registered):
        resettable.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset_all)
