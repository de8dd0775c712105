"""Code that travels into a container as text. Python 3.8, the standard library only."""
