"""``sweep`` and ``scrub``: what the daemon does now and then, done now."""

from __future__ import annotations

import sys
from argparse import Namespace

from repoman import config
from repoman.assembly import Store, make_store
from repoman.database.blobs import BlobRecords
from repoman.database.images import ImageRecords
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper


def sweep(arguments: Namespace) -> int:
    """Remove what nobody may get any more, and compare the store with the records."""

    async def work(reached: Reached) -> int:
        blobs, kept = BlobRecords(reached.pool), float(reached.config.limits.expired_kept)
        store = await _started(reached, blobs)
        sweeper = Sweeper(ImageRecords(reached.pool), blobs, store, kept, _nothing_runs_here)
        removed, found = await sweeper.sweep(), await sweeper.take_stock()
        print(f"{removed} files removed; {found.quarantined} without a record put in quarantine/.")
        if found.damaged:
            print(f"{found.damaged} files are missing: restore them.", file=sys.stderr)
        if found.suspicious:
            print(
                f"{found.suspicious} files have no record: is this the right database? "
                "None of them was touched.",
                file=sys.stderr,
            )
        return 1 if found.damaged or found.suspicious else 0

    return with_database(config.load(arguments.config), work)


def scrub(arguments: Namespace) -> int:
    """Read every file and hold it against its digest."""

    async def work(reached: Reached) -> int:
        blobs = BlobRecords(reached.pool)
        scrubber = Scrubber(blobs, await _started(reached, blobs))
        healed = await scrubber.heal()
        damaged = await scrubber.scrub(everything=reached.reactor)
        left = len(await blobs.damaged())
        unread = len(scrubber.unread)
        print(f"{len(await blobs.present()) - unread} files are right, {healed} of them again.")
        if unread:
            print(f"{unread} files cannot be read: look at the disk.", file=sys.stderr)
        if left:
            print(
                f"{left} files are damaged, {damaged} of them newly: restore them.", file=sys.stderr
            )
        return 1 if left or unread else 0

    return with_database(config.load(arguments.config), work)


async def _nothing_runs_here() -> None:
    pass


async def _started(reached: Reached, blobs: BlobRecords) -> Store:
    store = await make_store(reached.reactor, reached.config, blobs)
    await store.start()
    reached.stack.push_async_callback(store.stop)
    return store


SWEEP = Command(
    sweep,
    "Remove the files that nobody may get any more, and compare the store with the records, as "
    "the daemon does by itself.  It may run or not.",
)
SCRUB = Command(
    scrub,
    "Read every file in the store and hold it against its digest; status 1 if one is damaged.  "
    "The daemon may run or not.",
)
