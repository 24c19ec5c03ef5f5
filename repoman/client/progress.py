"""How a transfer tells somebody how far it is."""

from __future__ import annotations


class Progress:
    """Nobody watches; subclasses show it."""

    def begin(self, total: int | None, done: int) -> None:
        """A transfer begins, or begins again after a broken line.

        :param total: the whole file, in bytes; ``None`` if nobody knows yet.
        :param done: of them, those that were there before.
        """

    def advance(self, count: int) -> None:
        """``count`` more bytes have moved."""

    def waiting(self, error: Exception, seconds: float | None) -> None:
        """The line or the server failed; the transfer goes on after a while.

        :param seconds: until then; ``None``: it waits for its turn, however long that takes.
        """

    def end(self) -> None:
        """The transfer is over, well or not."""
