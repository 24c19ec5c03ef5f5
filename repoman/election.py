"""Which of a repository's daemons does what only one may do at a time.

A row in the database, by the database's clock: no connection is held for it, and none that breaks
loses it.  Two at once, for want of a better clock, would do no harm but work twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define
from twisted.logger import Logger

TERM = 30.0
"""Seconds after which another daemon takes over from one that died."""

STAND_SECONDS = 5.0
"""Seconds between two looks: a sweep that another daemon asks for waits no longer."""

_log = Logger()


class IElectorate(Protocol):
    """Where all daemons of a repository vote."""

    async def elect(self, term: float) -> bool | None:
        """Stand, for ``term`` seconds; ``None`` if lost, else whether a sweep was asked for."""


@define
class Election:
    """Begins the chores in this daemon when it is elected, and ends them when it is no more.

    :param seconds: the time, monotonic.
    :param begin: the chores.
    :param end: them.
    :param sweep: as another daemon has asked.
    """

    _electorate: IElectorate
    _seconds: Callable[[], float]
    _begin: Callable[[], object]
    _end: Callable[[], object]
    _sweep: Callable[[], object]
    _until: float | None = None

    @property
    def is_won(self) -> bool:
        """The chores are done here."""
        return self._until is not None

    async def hold(self) -> None:
        """Stand, or stand again."""
        began = self._seconds()
        asked = await self._electorate.elect(TERM)
        if asked is None:
            self._lose()
            return
        if self._until is None:
            _log.info("This daemon does the chores of the repository from now on")
            self._begin()
        self._until = began + TERM
        if asked:
            self._sweep()

    def look(self) -> None:
        """End the chores if it could not be renewed."""
        if self._until is not None and self._seconds() >= self._until:
            self._lose()

    def _lose(self) -> None:
        if self._until is not None:
            _log.info("Another daemon may do the chores of the repository from now on")
            self._end()
        self._until = None
