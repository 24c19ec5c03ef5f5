"""No answer's head without an end: Twisted's HTTP client would keep all of its lines."""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from repoman.errors import BadReply

HEAD_LIMIT = 2**20
"""How many bytes of an answer's head are read, more or less one read of the socket."""


class BoundedHead(ProtocolWrapper):
    """Between a connection and the HTTP client: hangs up on an answer that does not begin."""

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._left: float = HEAD_LIMIT
        self._fault: Failure | None = None

    def write(self, data: bytes) -> None:
        """Ask: a head is to come."""
        self._left = HEAD_LIMIT
        super().write(data)

    def writeSequence(self, data: list[bytes]) -> None:
        """The same."""
        self._left = HEAD_LIMIT
        super().writeSequence(data)

    def pauseProducing(self) -> None:
        """The HTTP client knows the head, and waits for somebody who wants the body."""
        self._left = math.inf
        self._below.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        """Pass some bytes on, while there is hope."""
        if self._left < 0:
            if self._fault is None:
                self._fault = Failure(BadReply("The server's answer does not come to its point."))
                self._below.abortConnection()
            return
        self._left -= len(data)
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Say why, if it was us."""
        super().connectionLost(self._fault or reason)

    @property
    def _below(self) -> Any:
        return self.transport


class BoundedHeads(WrappingFactory):
    """Puts :class:`BoundedHead` before what ``wrapped`` builds."""

    protocol = BoundedHead
