"""Pure code: what an execution is and what may happen to it. No I/O, no clock, no tasks."""
