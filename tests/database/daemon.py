"""A daemon in small: PostgreSQL of its own, and a transaction after the other.

Run with its state directory.  Prints a word a line: ``ready``, the server's
process id, and then the number of each row that is committed; or the reason
why it cannot.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from repoman.database.embedded import EmbeddedPostgres
from repoman.database.pool import Pool, Transaction
from repoman.errors import RepomanError


async def live(reactor: Any, state: Path) -> None:
    server = EmbeddedPostgres(reactor, state)
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(server.stop())
    )
    pool = Pool(reactor, await server.start())
    await pool.start()
    await pool.interact(lambda t: t.run("CREATE TABLE IF NOT EXISTS kept (n integer)"))
    say("ready", server.pid)
    for n in range(1_000_000):
        await pool.interact(partial(keep, n))
        say(n)


async def keep(n: int, transaction: Transaction) -> None:
    await transaction.run("INSERT INTO kept VALUES (%s)", [n])


def say(*words: object) -> None:
    print(*words, sep="\n", flush=True)


async def main(reactor: Any, state: str) -> None:
    try:
        await live(reactor, Path(state))
    except RepomanError as error:
        say(error)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
