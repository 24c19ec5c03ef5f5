"""An endpoint's connections: made, watched and seen off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from math import inf
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import server

from repoman.bounded_log import BoundedLog
from repoman.channel import IDLE_DEADLINE, Channel
from repoman.crowd import first_to_go, share, source_of
from repoman.errors import TookTooLong
from repoman.lingering import LINGER_RATE, Allowance
from repoman.request import ITrust, Request
from repoman.transfers import Transfer

ACCEPTS = 4
"""How many connections are accepted in one turn of the reactor.

Twisted takes as many as there are.  Where places are short, each newcomer pushes out another,
and in a turn with more newcomers than places nobody who came in the turn before would be heard.
"""


def accept_few(port: Any) -> None:
    """Let ``port`` accept ACCEPTS connections in one turn at most."""
    accept = port.doRead

    def accept_some() -> Any:
        port.numberAccepts = ACCEPTS
        return accept()

    port.doRead = accept_some


def took_too_long(limit: float) -> TookTooLong:
    """The end of an upload that has run for ``limit`` seconds."""
    hours = f"{limit / 3600:.4g} hours"
    return TookTooLong(f"An upload may run for {hours} at most; begin or resume a faster one.")


class RepositorySite(server.Site):
    """Makes the channels of one endpoint and sees them off.

    :ivar trust: judges peers; ``None`` on the plain endpoint.
    :ivar connections: how many may be open at once.
    :ivar min_rate: bytes per second below which a transfer is given up; 0: never.
    :ivar upload_time: the most seconds that a request may take to bring an upload.
    :ivar draining: the daemon is about to stop.
    :ivar allowance: of bytes that refused peers still send.
    """

    # Not Twisted's own, which would negotiate HTTP/2: it has none of the channel's hooks.
    protocol = Channel  # type: ignore[assignment]
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        resource: Any,
        trust: ITrust | None,
        *,
        connections: int,
        min_rate: int,
        upload_time: float = inf,
        log_request: Callable[[Any], None],
    ) -> None:
        super().__init__(
            resource,
            requestFactory=Request,
            reactor=reactor,
            timeout=IDLE_DEADLINE,
            parsePOSTFormSubmission=False,
        )
        self.trust = trust
        self.reactor = reactor
        self.draining = False
        self.allowance = Allowance(LINGER_RATE)
        self.connections = connections
        self.min_rate = min_rate
        self.upload_time = upload_time
        self._log_request = log_request
        self._channels: dict[Channel, None] = {}  # the oldest first
        self._sources: Counter[str] = Counter()
        self._drained: Deferred[None] | None = None
        self._strangers = BoundedLog(
            lambda: datetime.fromtimestamp(reactor.seconds(), timezone.utc), self._log
        )

    def log(self, request: Any) -> None:
        """An answer is written; it is noted when it has arrived (Twisted calls this)."""
        request.channel.delivery.answered(request)

    def note(self, request: Any) -> None:
        """Note a request whose answer has arrived, or was cut."""
        self._log_request(request)

    def opened(self, channel: Channel) -> None:
        """A connection was made; where all places are taken, one that lets us wait makes room."""
        channel.source = source_of(channel.transport.getPeer())
        self._channels[channel] = None
        self._sources[channel.source] += 1
        self._keep_room(channel)

    def announced(self, protocol: Any) -> None:
        """The PROXY header of a connection has come: it is somebody else's than it seemed.

        :param protocol: what speaks on it, a channel or its TLS.
        """
        channel = getattr(protocol, "wrappedProtocol", protocol)
        if channel in self._channels:
            self._forget(channel)
            self.opened(channel)

    def _keep_room(self, newcomer: Channel) -> None:
        """See somebody off, the newcomer itself if need be, where there are too many."""
        limit, own = self.connections, newcomer.source
        takes_all = self._sources[own] > share(limit)
        if not takes_all and len(self._channels) <= limit:
            return
        waiting = [
            found
            for one in self._channels
            if one is not newcomer
            and (not takes_all or one.source == own)
            and (found := one.waiting()) is not None
        ]
        leaves = first_to_go(waiting, self._sources, limit)
        channel = newcomer if leaves is None else leaves.connection
        self._strangers.say(f"All places are taken, cut: {channel.transport.getPeer()}")
        self._forget(channel)  # now, not when it has gone: many may come in one turn
        channel.make_room()

    def _forget(self, channel: Channel) -> None:
        if channel in self._channels:
            del self._channels[channel]
            self._sources[channel.source] -= 1
            if not self._sources[channel.source]:
                del self._sources[channel.source]

    def closed(self, channel: Channel) -> None:
        """A connection has ended."""
        self._forget(channel)
        if self._drained is not None and not self._channels:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def watch(self, seconds: float) -> None:
        """Look after every connection; to be called every ``seconds``."""
        now = self.reactor.seconds()
        for channel in tuple(self._channels):
            channel.watch(seconds, self.min_rate)
        for request in self._requests():
            if (transfer := request.transfer()) is not None:
                request.pace.note(now, transfer.moved)
                if transfer.direction == "upload" and transfer.seconds > self.upload_time:
                    request.body.fail(took_too_long(self.upload_time))

    @property
    def open_connections(self) -> int:
        """How many there are now."""
        return len(self._channels)

    def transfers(self) -> list[Transfer]:
        """What is on its way now."""
        found = (request.transfer() for request in self._requests())
        return [transfer for transfer in found if transfer is not None]

    def _requests(self) -> list[Request]:
        return [channel.requests[0] for channel in self._channels if channel.requests]

    def cut_slow(self, channel: Channel) -> None:
        """Cut a connection whose peer is too slow."""
        self._strangers.say(f"Transfer too slow, cut: {channel.transport.getPeer()}")
        channel.abort()

    def timed_out(self, channel: Channel) -> None:
        """A connection is closed whose peer was silent for too long."""
        self._strangers.say(f"Timing out client: {channel.transport.getPeer()}")

    def unannounced(self, transport: Any) -> None:
        """A connection is cut that began without the PROXY header."""
        self._strangers.say(f"No PROXY header, cut: {transport.getPeer()}")
        transport.abortConnection()

    async def drain(self, deadline: float) -> None:
        """Let running requests end, cut what still runs after ``deadline`` seconds.

        Waits for the connections themselves: the end of a request comes
        before its last bytes have left.
        """
        self.draining = True
        for channel in tuple(self._channels):
            channel.drain()
        if not self._channels:
            return
        self._drained = Deferred()
        cut = self.reactor.callLater(deadline, self.cut)
        await self._drained
        if cut.active():
            cut.cancel()

    def cut(self) -> None:
        """End every connection now."""
        if self._channels:
            self._log.warn("{count} connections cut, to stop", count=len(self._channels))
        for channel in tuple(self._channels):
            channel.abort()
            self.closed(channel)
