"""The resumable uploads whose bytes come in through this process now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define
from twisted.internet.defer import Deferred

from repoman.interfaces import IBlobRecords, IBlobWriter, IBody


@define(eq=False)
class Run:
    """A part that comes in.

    :ivar is_held: the records say that this process has the upload.
    """

    body: IBody
    ended: Deferred[None]
    writer: IBlobWriter | None = None
    is_held: bool = False


class Running:
    """At most one part of each upload, over all processes: who comes later gets on.

    A client that comes back does so because its old connection is dead, even if nobody has noticed.
    """

    def __init__(self, records: IBlobRecords) -> None:
        self._records = records
        self._runs: dict[str, Run] = {}

    def blobs(self) -> list[str]:
        """Those that run."""
        return list(self._runs)

    async def settle(self, blob: str) -> None:
        """End the part that runs, here or in another process, so that the offset is the last word.

        :raises Unavailable: another process does not let go.
        """
        while True:
            await self._records.hand_over(blob)
            if (run := self._runs.get(blob)) is None:
                return
            run.body.interrupt()
            ended: Deferred[None] = Deferred()
            run.ended.chainDeferred(ended)
            await ended

    @contextmanager
    def beginning(self, blob: str, body: IBody) -> Iterator[Run]:
        """Run a block that takes a part."""
        run = self._runs[blob] = Run(body, Deferred())
        try:
            yield run
        finally:
            del self._runs[blob]
            run.ended.callback(None)

    async def record_progress(self, keep: float) -> None:
        """Tell the records how much is durable; end what is lost, or wanted by another process.

        :param keep: for how many seconds what has grown is kept.
        """
        held = {blob: run for blob, run in self._runs.items() if run.is_held}
        if not held:
            return
        durable = {blob: run.writer.durable if run.writer else 0 for blob, run in held.items()}
        ours = await self._records.progress(durable, keep)
        for blob, run in held.items():
            if ours.get(blob, True):
                run.body.interrupt()

    def let_go(self) -> None:
        """End what could not be renewed for so long that another process may take it."""
        for blob in self._records.overdue():
            if (run := self._runs.get(blob)) is not None:
                run.body.interrupt()
