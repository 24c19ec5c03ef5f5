"""What the workers report, as if they were one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from repoman.history import History
from repoman.metrics import Metrics
from repoman.workers.crew import Crew
from repoman.workers.sums import Families, exposition, lasting, read, total
from repoman.workers.worker import Worker


class Collected:
    """Numbers and troubles of all workers, the dead included where they count.

    :param crews: answers which there are.
    :ivar metrics: the foreman's own.
    :ivar trouble: why the last reload has failed; empty: it has not.
    """

    def __init__(self, reactor: Any, crews: Callable[[], Iterable[Crew]]) -> None:
        self._crews = crews
        self._gone: Families = []
        self.metrics = Metrics()
        # Something to add to, when none is there to report.
        self.metrics.show("repoman_workers", "Processes that serve", lambda: {"": 0})
        self.history = History(reactor.seconds, lambda: datetime.now(timezone.utc))
        self.trouble = ""

    def add(self, worker: Worker) -> None:
        """Note the news of a worker's report."""
        news = worker.report.news
        self.history.add(news)
        self.metrics.stalled(max((span.stall for span in news.spans), default=0.0))

    def bury(self, worker: Worker) -> None:
        """Keep what a worker has counted that is no more."""
        self._gone = total([self._gone, lasting(read(worker.report.metrics))])

    def exposition(self) -> bytes:
        """The metrics of all, in Prometheus' text format."""
        own = read(self.metrics.exposition().decode())
        living = [read(worker.report.metrics) for worker in self._living()]
        return exposition(total([own, self._gone, *living]))

    def troubles(self) -> list[str]:
        """Why we cannot serve now; none if one of us can and none has anything to say."""
        workers = list(self._living())
        said = [line for worker in workers for line in worker.report.troubles]
        if self.trouble:
            said.append(self.trouble)
        if not said and not any(worker.report.serves for worker in workers):
            said.append("No worker serves yet.")
        return list(dict.fromkeys(said))

    def _living(self) -> Iterable[Worker]:
        return (worker for crew in self._crews() for worker in crew.workers)
