"""Code that runs in the program's own process, for runs that report displays, values and exceptions."""
