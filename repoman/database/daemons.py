"""The processes that serve one repository: which does the chores, and what runs in the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import asdict, evolve

from repoman.database.pool import Pool
from repoman.transfers import Transfer

GONE = 10.0
"""Seconds after which a process that tells nothing counts as gone."""

ELECT = """
WITH before AS (SELECT sweep FROM chores FOR UPDATE)
UPDATE chores SET holder = %(me)s, held_until = now() + %(term)s * interval '1 s', sweep = false,
                  since = CASE WHEN chores.holder = %(me)s AND held_until >= now() THEN since
                               ELSE now() END
  FROM before WHERE chores.holder = %(me)s OR coalesce(held_until < now(), true)
RETURNING before.sweep
"""

TELL = """
WITH gone AS (DELETE FROM daemon WHERE moment < now() - %(gone)s * interval '1 s')
INSERT INTO daemon VALUES (%(me)s, %(name)s, now(), %(transfers)s)
ON CONFLICT (holder) DO UPDATE SET moment = now(), transfers = excluded.transfers
RETURNING (SELECT count(*) FROM daemon
            WHERE holder <> %(me)s AND moment > now() - %(gone)s * interval '1 s')
"""


class Daemons:
    """What the processes tell one another.

    :param holder: the name of this one.
    :param name: of it, for people.
    """

    def __init__(self, pool: Pool, holder: str, name: str) -> None:
        self._pool = pool
        self._me = holder
        self._name = name
        self._has_others = False

    @property
    def is_alone(self) -> bool:
        """There can be no other."""
        return self._pool.is_alone

    async def elect(self, term: float) -> bool | None:
        """Stand for the chores, or go on with them: for ``term`` more seconds.

        :returns: ``None`` if another process has them; else whether a sweep was asked for.
        """
        row = await self._pool.interact(
            lambda transaction: transaction.run_one(ELECT, {"me": self._me, "term": term})
        )
        return None if row is None else bool(row[0])

    async def resign(self) -> None:
        """Leave the chores, and the others' lists."""

        async def work(transaction: Any) -> None:
            await transaction.run(
                "UPDATE chores SET held_until = NULL WHERE holder = %s", (self._me,)
            )
            await transaction.run("DELETE FROM daemon WHERE holder = %s", (self._me,))

        await self._pool.interact(work)

    async def ask_for_sweep(self) -> None:
        """Let whoever has the chores sweep soon."""
        await self._pool.interact(
            lambda transaction: transaction.run("UPDATE chores SET sweep = true")
        )

    async def tell(self, running: Sequence[Transfer]) -> None:
        """Say that this process lives, and to others, if there are any, what runs in it."""
        told = [asdict(transfer) for transfer in running] if self._has_others else []
        known = {"me": self._me, "name": self._name, "gone": GONE, "transfers": json.dumps(told)}
        row = await self._pool.interact(lambda transaction: transaction.run_one(TELL, known))
        self._has_others = row is not None and row[0] > 0

    async def elsewhere(self) -> list[Transfer]:
        """What runs in the other processes, as of a few seconds ago."""
        if not self._has_others:
            return []
        rows = await self._pool.query(
            "SELECT name, extract(epoch FROM now() - moment)::float, transfers FROM daemon"
            " WHERE holder <> %s AND moment > now() - %s * interval '1 s' ORDER BY name, holder",
            (self._me, GONE),
        )
        return [
            evolve(told, seconds=told.seconds + age, daemon=name)
            for name, age, running in rows
            for told in (Transfer(**one) for one in running)
        ]
