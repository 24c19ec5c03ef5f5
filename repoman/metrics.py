"""What monitoring asks: numbers, whether we live, whether we can serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from repoman.site import RepositorySite, accept_few

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
"""Methods that are counted by name; clients can make up others without end."""


CONNECTIONS = 20
"""How many may be open at the endpoint for monitoring; it is asked now and then, by few."""

MIN_RATE = 1024
"""Bytes per second that who asks there must take."""

SHARE = 0.1
"""How much of the time may go into making the metrics."""

MOST_WAITING = 2
"""How many may wait for new metrics: who waits is not cut, and must leave room for others."""

WATCH_SECONDS = 5.0
"""Seconds between two looks at the connections there."""

RETRY_SECONDS = 5
"""When who was told that we cannot serve may look again."""


_log = Logger()


@frozen
class _Reading(Collector):
    name: str
    about: str
    read: Callable[[], Mapping[str, float]]
    label: str

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            self.name, self.about, labels=[self.label] if self.label else None
        )
        for word, value in self.read().items():
            family.add_metric([word] if self.label else [], value)
        yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        # Not collect(): what it would read may not be there yet.
        return [GaugeMetricFamily(self.name, self.about)]


class Metrics:
    """The daemon's numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "repoman_requests", "Answered requests", ["method", "status"], registry=self.registry
        )
        self._sent = Counter(
            "repoman_sent_bytes", "Bytes of answers' bodies", registry=self.registry
        )
        self._received = Counter(
            "repoman_received_bytes", "Bytes of requests' bodies", registry=self.registry
        )
        self._seconds = Histogram(
            "repoman_request_seconds",
            "Time from a request's headers to the end of its answer",
            registry=self.registry,
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 3600),
        )
        self._lag = Gauge(
            "repoman_loop_lag_seconds",
            "The longest stall of the event loop since the last scrape",
            registry=self.registry,
        )
        self._failures = Counter(
            "repoman_background_failures",
            "Failures of work that nobody waits for",
            ["work"],
            registry=self.registry,
        )
        self._worst_lag = 0.0

    def count(self, request: Any, seconds: float) -> None:
        """Note a request that was answered, or was cut."""
        method = request.method.decode("ascii")
        if request.status is not None:
            self._requests.labels(method if method in METHODS else "other", request.status).inc()
        self._sent.inc(request.sentLength)
        self._received.inc(request.body.count)
        self._seconds.observe(seconds)

    def show(
        self, name: str, about: str, read: Callable[[], Mapping[str, float]], label: str = ""
    ) -> None:
        """Show what ``read()`` answers at each scrape: a value for each word of ``label``.

        Without a label the one word is empty.
        """
        self.registry.register(_Reading(name, about, read, label))

    def failed(self, work: str) -> None:
        """Note that work in the background failed."""
        self._failures.labels(work).inc()

    def stalled(self, seconds: float) -> None:
        """The event loop came so much too late to a timer."""
        self._worst_lag = max(self._worst_lag, seconds)

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        self._lag.set(self._worst_lag)
        self._worst_lag = 0.0
        return bytes(generate_latest(self.registry))


class IExposed(Protocol):
    """Numbers that can be shown."""

    def exposition(self) -> bytes:
        """All of them, in Prometheus' text format."""


async def open_monitoring(
    reactor: Any,
    endpoint: str | None,
    metrics: IExposed,
    troubles: Callable[[], list[str]],
    running: AsyncExitStack,
) -> None:
    """Open the endpoint for monitoring, if one is wanted; a service without it is better than none.

    :param troubles: see :class:`Monitoring`.
    :param running: closes it in time.
    """
    if endpoint is None:
        return
    # Not Twisted's own, which reads any body, and forms in one go, before it looks at the method.
    site = RepositorySite(
        reactor,
        Monitoring(reactor, metrics, troubles),
        None,
        connections=CONNECTIONS,
        min_rate=MIN_RATE,
        log_request=lambda request: None,  # the probes are no news for a log
    )
    try:
        port = await serverFromString(reactor, endpoint).listen(site)
    except CannotListenError as error:
        _log.error(
            "[metrics] cannot listen on {endpoint}: {why}; going on without",
            endpoint=endpoint,
            why=error.socketError,
        )
        return
    accept_few(port)
    running.push_async_callback(port.stopListening)
    _look_after(site, reactor, running)


def _look_after(site: RepositorySite, reactor: Any, running: AsyncExitStack) -> None:
    looking = LoopingCall(lambda: Deferred.fromCoroutine(site.watch(WATCH_SECONDS)))
    looking.clock = reactor
    looking.start(WATCH_SECONDS, now=False)
    running.callback(looking.stop)
    running.callback(site.cut)


class Monitoring(Resource):
    """``/metrics``, ``/healthz`` and ``/readyz``.  No body is read, whatever the method.

    Who asks often for the metrics waits: making them takes a SHARE of the time at most.  Where
    MOST_WAITING wait already, the numbers are those of the last time.

    :param metrics: has an ``exposition()``.
    :param troubles: why we cannot serve now, a line each; empty if we can.
    """

    isLeaf = True

    def __init__(self, reactor: Any, metrics: IExposed, troubles: Callable[[], list[str]]) -> None:
        super().__init__()
        self._reactor = reactor
        self._metrics = metrics
        self._troubles = troubles
        self._scrapes: list[Any] = []
        self._next_scrape = reactor.seconds()
        self._numbers = b""

    def render(self, request: Any) -> int:
        """Give a probe what it asks for."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader("Allow", "GET, HEAD")
            _give(request, b"Only GET and HEAD can be done here.\n")
        elif request.path == b"/metrics":
            self._give_numbers(request)
        elif request.path == b"/healthz":
            _give(request, b"ok\n")
        elif request.path == b"/readyz":
            if troubles := self._troubles():
                request.setResponseCode(503)
                request.setHeader("Retry-After", str(RETRY_SECONDS))
            _give(request, "".join(f"{line}\n" for line in troubles or ["ready"]).encode())
        else:
            request.setResponseCode(404)
            _give(request, b"There are /metrics, /healthz and /readyz.\n")
        return NOT_DONE_YET

    def _give_numbers(self, request: Any) -> None:
        request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
        if self._numbers and len(self._scrapes) >= MOST_WAITING:
            _give(request, self._numbers)
            return
        self._scrapes.append(request)
        if len(self._scrapes) == 1:
            wait = self._next_scrape - self._reactor.seconds()
            self._reactor.callLater(max(wait, 0.0), self._scrape)

    def _scrape(self) -> None:
        """Give all who wait the numbers as they are now."""
        waiting, self._scrapes = self._scrapes, []
        begun = self._reactor.seconds()
        try:
            self._numbers = self._metrics.exposition()
        except Exception:  # a number that cannot be read costs these scrapes, not all that follow
            failure = Failure()
            for request in waiting:
                request.processingFailed(failure)
            return
        now = self._reactor.seconds()
        self._next_scrape = now + (now - begun) / SHARE
        for request in waiting:
            _give(request, self._numbers)


def _give(request: Any, text: bytes) -> None:
    # Not returned to Twisted, which would write a line, with all of the address, for each HEAD.
    request.setHeader("Content-Length", str(len(text)))
    request.write(text)
    request.finish()
