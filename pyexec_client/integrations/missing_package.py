"""The error of a module whose agent framework is not installed."""

from __future__ import annotations


def missing_package(package: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return an error that names the package to install. Its name often differs from the module that is missing."""
    text = f"{error}; this module needs {package}: run pip install {package}"
    return ModuleNotFoundError(text, name=error.name)
