"""What the daemon does now and then without being asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from repoman.assembly import Assembly
from repoman.background import Background
from repoman.election import STAND_SECONDS, Election
from repoman.errors import StoreUnavailable
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper

SWEEP_SECONDS = 60.0
"""Seconds between two looks of the sweeper."""

SCRUB_SECONDS = 5.0
"""Seconds between two looks for files to read again."""

STOCK_SECONDS = 6 * 3600.0
"""Seconds between two comparisons of the store with the records."""

RENEWAL_SECONDS = 20.0
"""Seconds between two signs of life of running uploads: nobody is given up in the first minute."""

PROGRESS_SECONDS = 1.0
"""Seconds between two notes of how far resumable uploads are durable, and looks who wants them."""

LOOK_SECONDS = 1.0
"""Seconds between two looks whether something could not be renewed for too long."""

TELL_SECONDS = 2.0
"""Seconds between two notes, for other daemons, of what runs in this one."""

log = Logger()


class Chores:
    """Done from now on, until ``background`` is stopped.

    :param seconds: the time, monotonic.
    """

    def __init__(
        self, background: Background, assembly: Assembly, seconds: Callable[[], float]
    ) -> None:
        self._background = background
        self._assembly = assembly
        self._elected = background.part()
        self._election: Election | None = None
        self._begin_own()
        if assembly.daemons.is_alone:
            self._begin_common()
        else:
            self._stand(seconds)

    def _begin_own(self) -> None:
        """What every daemon does for what runs in it."""
        repository, every = self._assembly.repository, self._background.every
        every(RENEWAL_SECONDS, "renew leases", repository.renew_leases)
        every(PROGRESS_SECONDS, "record progress", repository.uploads.record_progress)

    def _begin_common(self) -> None:
        """What one daemon does for all."""
        sweeper, scrubber = self._assembly.sweeper, self._assembly.scrubber
        audit, every = self._assembly.repository.audit, self._elected.every
        every(SWEEP_SECONDS, "sweep", sweeper.sweep, at_once=True)
        every(SCRUB_SECONDS, "scrub", partial(_scrub, scrubber))
        every(STOCK_SECONDS, "heal", partial(_heal, scrubber), at_once=True)
        every(STOCK_SECONDS, "take stock", partial(_take_stock, sweeper), at_once=True)
        every(STOCK_SECONDS, "prune the audit", audit.prune, at_once=True)

    def _stand(self, seconds: Callable[[], float]) -> None:
        daemons, every = self._assembly.daemons, self._background.every
        election = self._election = Election(
            daemons, seconds, self._begin_common, self._elected.stop, self.sweep_soon
        )

        async def look() -> None:
            election.look()
            self._assembly.repository.uploads.let_go()

        async def tell() -> None:
            await daemons.tell(self._assembly.repository.transfers.here())

        every(STAND_SECONDS, "stand for the chores", election.hold, at_once=True)
        every(LOOK_SECONDS, "look for what is lost", look)
        every(TELL_SECONDS, "tell the other daemons", tell, at_once=True)

    def sweep_soon(self) -> None:
        """There is work for the sweeper."""
        if self._election is None or self._election.is_won:
            self._background.once("sweep", self._assembly.sweeper.sweep)
        else:
            self._background.once("ask for a sweep", self._assembly.daemons.ask_for_sweep)

    async def resign(self) -> None:
        """Let another daemon do what one does for all; to be called at the end."""
        if self._election is not None:
            await self._background.once("resign", self._assembly.daemons.resign)


async def _scrub(scrubber: Scrubber) -> None:
    if damaged := await scrubber.scrub():
        log.critical("{count} files in the store are not what was stored", count=damaged)
    if scrubber.unread:
        raise StoreUnavailable(f"{len(scrubber.unread)} files cannot be read just now.")


async def _heal(scrubber: Scrubber) -> None:
    if healed := await scrubber.heal():
        log.warn("{count} damaged files are whole again", count=healed)


async def _take_stock(sweeper: Sweeper) -> None:
    found = await sweeper.take_stock()
    if found.suspicious:
        log.critical(
            "{count} files in the store have no record: is this the right database? "
            "Nothing was touched.",
            count=found.suspicious,
        )
    if found.quarantined:
        log.warn("{count} files without a record: see quarantine/", count=found.quarantined)
    if found.damaged:
        log.critical("{count} files are missing from the store", count=found.damaged)
