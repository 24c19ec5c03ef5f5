"""What every blob writer is to its producer: who is paused, and resumed into what went wrong."""

from __future__ import annotations

from typing import Any

from repoman.errors import RepomanError, StoreUnavailable


class Paced:
    """The producer's side of a :class:`repoman.interfaces.IBlobWriter`."""

    def __init__(self) -> None:
        self._producer: Any = None
        self._paused = False
        self._broken: RepomanError | None = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume ``producer``, which must push (IPushProducer)."""
        if not streaming:
            raise ValueError("a blob is written by push producers only")
        self._producer = producer

    def unregisterProducer(self) -> None:
        """No more bytes come from the producer."""
        self._producer = None
        self._paused = False

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _break(self, error: RepomanError) -> RepomanError:
        """Take nothing more; the first reason counts."""
        if self._broken is None:
            self._broken = error
        self._resume()  # so that the flow runs into the error
        return self._broken

    def _pause(self) -> None:
        if not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._producer.resumeProducing()


def lost() -> StoreUnavailable:
    """The refusal of a writer that has ended."""
    return StoreUnavailable("The blob store lost the upload; try again.")
