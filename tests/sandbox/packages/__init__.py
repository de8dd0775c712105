"""Popular packages in groups: one environment for each group, and a few lines that use each package.

The lines use what reaches the kernel: threads, processes, sockets, memory maps, compilers, timers and signals."""

from collections.abc import Mapping

from tests.sandbox.packages.science import ARRAYS, COMPILERS, TABLES
from tests.sandbox.packages.services import NETWORK
from tests.sandbox.packages.tools import SYSTEM, TEXT

GROUPS: Mapping[str, Mapping[str, str]] = {
    "arrays": ARRAYS,
    "tables": TABLES,
    "compilers": COMPILERS,
    "network": NETWORK,
    "text": TEXT,
    "system": SYSTEM,
}
"""For each group, the requirement of each package and the program that uses it."""
