"""Pure code: executions, their events, their rules and their results. No I/O, no clock, no tasks."""
