"""In whose hands a resumable upload is, of all processes that serve one repository.

The rule is the database's: who begins a part writes its name and a time into the row, and renews
the time; until then, by the database's clock, nobody else begins one.  What a process writes after
it has lost an upload touches no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from attrs import define, field

from repoman.database.pool import Transaction
from repoman.errors import Missing, RepomanError, Unavailable, WrongOffset

HELD = 20.0
"""Seconds that a process has an upload without a renewal: longer than a silent worker may live."""

LET_GO_AFTER = 15.0
"""Seconds without a renewal after which it stops by itself: its clock may be a little slow."""

PATIENCE = 10.0
"""Seconds to wait for another process to let go."""

LOOK_SECONDS = 0.3
"""Seconds between two looks whether it has."""

FREE = "(blob.holder = %(me)s OR coalesce(blob.held_until < now(), true))"
"""A condition: no other process has the upload."""

WANT = """
UPDATE blob SET wanted = true
 WHERE blob = %s AND state = 'receiving' AND holder <> %s AND held_until >= now() RETURNING blob
"""

PROGRESS = """
UPDATE blob SET durable = greatest(blob.durable, known.durable),
                keep_until = CASE WHEN known.durable > blob.durable
                                  THEN now() + %(keep)s * interval '1 s' ELSE keep_until END,
                held_until = now() + %(held)s * interval '1 s'
  FROM unnest(%(blobs)s::text[], %(durable)s::bigint[]) AS known (key, durable)
 WHERE blob = key AND state = 'receiving' AND holder = %(me)s
   AND held_until IS NOT NULL  -- paused, it has heard the last word
RETURNING blob, wanted
"""


async def why_not(transaction: Transaction, blob: str) -> RepomanError:
    """Why an upload could not be resumed."""
    row = await transaction.run_one(
        "SELECT durable, coalesce(held_until >= now(), false) FROM blob"
        " WHERE blob = %s AND state = 'receiving' AND resumable",
        (blob,),
    )
    if row is None:
        return Missing("The upload was given up meanwhile.")
    durable, is_held = row
    if is_held:
        return goes_on_elsewhere()
    return WrongOffset(f"The upload goes on at byte {durable}.", offset=durable)


def goes_on_elsewhere() -> Unavailable:
    """The refusal of an upload that another process has."""
    return Unavailable("The upload still goes on through another daemon; try again in a moment.")


@define
class Claims:
    """Until when this process has which uploads, as it knows without asking.

    Counted from before the statement was sent: the row says a later time, never an earlier one.

    :param seconds: the time, monotonic.
    """

    _seconds: Callable[[], float]
    _since: dict[str, float] = field(factory=dict)

    @contextmanager
    def making(self, blob: str) -> Iterator[None]:
        """Run a block that takes an upload."""
        began = self._seconds()
        yield
        self._since[blob] = began

    @contextmanager
    def renewing(self, blobs: Iterable[str]) -> Iterator[set[str]]:
        """Run a block that adds to the set those that are still ours."""
        began, renewed = self._seconds(), set[str]()
        yield renewed
        for blob in blobs:
            if blob in renewed and blob in self._since:
                self._since[blob] = began
            elif blob not in renewed:
                self.end(blob)

    def end(self, blob: str) -> None:
        """It has been let go of, or lost."""
        self._since.pop(blob, None)

    def overdue(self) -> list[str]:
        """Those that could not be renewed for :data:`LET_GO_AFTER` seconds."""
        limit = self._seconds() - LET_GO_AFTER
        return [blob for blob, since in self._since.items() if since < limit]
