"""Detect the entrypoint of an archive: the order of candidates in docs/api.md."""

from fnmatch import fnmatchcase

from attrs import define

_NAMES = ("main.py", "__main__.py")
_AUXILIARY = ("__init__.py", "setup.py", "conftest.py", "test_*.py")
"""Scripts that are candidates only if the archive has no others."""

Rank = tuple[bool, int, int, int, int]


@define
class EntrypointCandidates:
    """The best script so far. Memory is constant: two candidates, because a later member decides which one counts.

    The only top-level folder comes before all other folders, but another folder may appear until the end."""

    _folder: str | None = None
    _has_folders: bool = False
    """True if there is more than one top-level folder."""
    _in_folder: tuple[Rank, str] | None = None
    """The best candidate if there is only one top-level folder."""
    _anywhere: tuple[Rank, str] | None = None
    """The best candidate if there are several."""

    def add_folder(self, name: str) -> None:
        """Record a top-level directory."""
        if "/" in name or name in (".", "__MACOSX"):
            return
        if self._folder is None:
            self._folder = name
        elif self._folder != name:
            self._has_folders = True

    def add(self, name: str, position: int) -> None:
        """Add a file that can be run, if it is a script. `position` is its number in the archive."""
        if not is_script(name):
            return
        self._in_folder = _better(self._in_folder, (_rank(name, position, is_in_folder=True), name))
        self._anywhere = _better(self._anywhere, (_rank(name, position, is_in_folder=False), name))

    def improves(self, name: str, position: int) -> bool:
        """Return True if `name` is a script that comes before the best candidate. Call it after the last member."""
        if not is_script(name):
            return False
        best = self._best()
        return best is None or _rank(name, position, is_in_folder=not self._has_folders) < best[0]

    def best(self) -> str | None:
        """Return the best candidate. Call it after the last member."""
        best = self._best()
        return best[1] if best else None

    def _best(self) -> tuple[Rank, str] | None:
        return self._anywhere if self._has_folders else self._in_folder


def is_script(name: str) -> bool:
    """Return True if the name is that of a Python script, and not of a file that macOS adds to archives."""
    *folders, base = name.split("/")
    return base.endswith(".py") and not base.startswith("._") and folders[:1] != ["__MACOSX"]


def _better(best: tuple[Rank, str] | None, other: tuple[Rank, str]) -> tuple[Rank, str]:
    return other if best is None else min(best, other)


def _rank(name: str, position: int, *, is_in_folder: bool) -> Rank:
    """Return the rank of a script. `is_in_folder` says that there is only one top-level folder."""
    base, depth = name.rsplit("/", 1)[-1], name.count("/")
    is_auxiliary = any(fnmatchcase(base, pattern) for pattern in _AUXILIARY)
    kind = _NAMES.index(base) if base in _NAMES else len(_NAMES)
    if depth == 0:
        return is_auxiliary, 0, kind, 0, position
    if depth == 1 and is_in_folder:
        return is_auxiliary, 1, kind, 0, position
    return is_auxiliary, 2, kind, depth if base in _NAMES else 0, position
