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
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Site

METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})
"""Methods that are counted by name; clients can make up others without end."""


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


class MonitoringSite(Site):
    """Serves the probes, which are no news for a log."""

    def log(self, request: Any) -> None:
        """Nothing."""


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
    try:
        site = MonitoringSite(Monitoring(metrics, troubles))
        port = await serverFromString(reactor, endpoint).listen(site)
    except CannotListenError as error:
        _log.error(
            "[metrics] cannot listen on {endpoint}: {why}; going on without",
            endpoint=endpoint,
            why=error.socketError,
        )
        return
    running.push_async_callback(port.stopListening)


class Monitoring(Resource):
    """``/metrics``, ``/healthz`` and ``/readyz``.

    :param metrics: has an ``exposition()``.
    :param troubles: why we cannot serve now, a line each; empty if we can.
    """

    isLeaf = True

    def __init__(self, metrics: IExposed, troubles: Callable[[], list[str]]) -> None:
        super().__init__()
        self._metrics = metrics
        self._troubles = troubles

    def render_GET(self, request: Any) -> bytes:
        """Answer a probe."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        if request.path == b"/metrics":
            request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
            return self._metrics.exposition()
        if request.path == b"/healthz":
            return b"ok\n"
        if request.path == b"/readyz":
            troubles = self._troubles()
            request.setResponseCode(503 if troubles else 200)
            return "".join(f"{line}\n" for line in troubles or ["ready"]).encode()
        request.setResponseCode(404)
        return b"There are /metrics, /healthz and /readyz.\n"
