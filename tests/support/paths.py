"""Paths in the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "tests" / "wire"
"""Documents that the server and both clients must agree on."""
