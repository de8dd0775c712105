"""What goes wrong at every try for as long as something is away: said when it begins and when it is over."""

import logging

from attrs import define

from pyexec.errors import ExecutorError


@define
class Trouble:
    """One thing that a loop does, such as "reading the inbox", and whether it works at present."""

    logger: logging.Logger
    doing: str
    failing: bool = False

    def met(self, error: ExecutorError) -> None:
        """This try has failed; logged when the one before had not."""
        if not self.failing:
            self.logger.warning("%s fails, and is tried again until it works: %s", self.doing, error)
        self.failing = True

    def over(self) -> None:
        """This try has worked; logged when the one before had not."""
        if self.failing:
            self.logger.info("%s works again", self.doing)
        self.failing = False
