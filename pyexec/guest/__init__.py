"""Code that runs inside containers. It travels there as text, so it uses only the standard library of Python 3.8."""
