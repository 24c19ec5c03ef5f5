"""What the daemon does now and then without being asked."""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from repoman.assembly import Assembly
from repoman.background import Background
from repoman.errors import StoreUnavailable
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper

SWEEP_SECONDS = 60.0
"""Seconds between two looks of the sweeper."""

SCRUB_SECONDS = 5.0
"""Seconds between two looks for files to read again."""

STOCK_SECONDS = 6 * 3600.0
"""Seconds between two comparisons of the store with the records."""

RENEWAL_SECONDS = 60.0
"""Seconds between two signs of life of running uploads."""

PROGRESS_SECONDS = 2.0
"""Seconds between two notes of how far resumable uploads are durable."""

log = Logger()


def begin_chores(background: Background, assembly: Assembly, *, all_of_them: bool = True) -> None:
    """Do it from now on, until ``background`` is stopped.

    :param all_of_them: what one process does for all, too.
    """
    repository = assembly.repository
    background.every(RENEWAL_SECONDS, "renew leases", repository.renew_leases)
    background.every(PROGRESS_SECONDS, "record progress", repository.uploads.record_progress)
    if not all_of_them:
        return
    sweeper, scrubber = assembly.sweeper, assembly.scrubber
    background.every(SWEEP_SECONDS, "sweep", sweeper.sweep, at_once=True)
    background.every(SCRUB_SECONDS, "scrub", partial(_scrub, scrubber))
    background.every(STOCK_SECONDS, "heal", partial(_heal, scrubber), at_once=True)
    background.every(STOCK_SECONDS, "take stock", partial(_take_stock, sweeper), at_once=True)
    background.every(STOCK_SECONDS, "prune the audit", repository.audit.prune, at_once=True)


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
