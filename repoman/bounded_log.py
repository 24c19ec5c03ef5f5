"""Log lines that strangers cause: so many in a minute, and no more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import define
from twisted.logger import Logger

LINES_A_MINUTE: Final = 60
"""How many are logged at most."""

LONGEST_LINE: Final = 2000
"""How many characters of a line are logged: names in certificates can have any length."""


@define
class BoundedLog:
    """Says what it is told, within bounds.

    :ivar clock: answers the time (aware, UTC).
    :ivar log: says it.
    """

    clock: Callable[[], datetime]
    log: Logger
    _minute: int = 0
    _count: int = 0

    def say(self, line: str) -> None:
        """Log a line, or count it among those left out."""
        minute = int(self.clock().timestamp()) // 60
        if minute != self._minute:
            if self._count > LINES_A_MINUTE:
                self.log.info("{n} more such lines were left out", n=self._count - LINES_A_MINUTE)
            self._minute, self._count = minute, 0
        self._count += 1
        if self._count <= LINES_A_MINUTE:
            if len(line) > LONGEST_LINE:
                line = f"{line[:LONGEST_LINE]}...+{len(line) - LONGEST_LINE}"
            self.log.info("{line}", line=line)  # as a field, because it may hold braces
