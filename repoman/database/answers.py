"""Answers of the database that are true still, or were within the last second."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field

KEPT = 1.0
"""Seconds after which what changed without our knowledge counts at the latest."""

MOST = 1000
"""How many answers are kept, and beside them how many questions to which there is none."""

Rows = list[Any]


@define
class Answers:
    """What was asked a moment ago, for a database that hardly anybody else writes to.

    Every writer of this process forgets everything, before it begins and when it has ended, and
    nothing is kept that was asked meanwhile: after those an answer from here is what the database
    itself would answer.  Two kinds of writers are not seen, and count :data:`KEPT` seconds later
    at most: other processes, as ``repoman-server`` beside the daemon; and a transaction of our own
    whose outcome is unknown, where the server commits after we have ended.

    :param seconds: the time, monotonic.
    """

    _seconds: Callable[[], float]
    _kept: dict[Hashable, tuple[float, Rows]] = field(factory=dict)
    # By themselves: who asks for what is not there pushes out nobody's answers.
    _nothing: dict[Hashable, tuple[float, Rows]] = field(factory=dict)
    _writers: int = 0
    _age: int = 0

    def find(self, question: Hashable) -> Rows | None:
        """The answer, if it is known."""
        found = self._kept.get(question) or self._nothing.get(question)
        if found is None or self._seconds() >= found[0] + KEPT:
            return None
        return found[1]

    def asking(self, question: Hashable) -> Callable[[Rows], None]:
        """Begin to ask; answer what keeps the answer, if nobody wrote meanwhile.

        That there is nothing is kept as well: else who may not know that something is there
        would see it from the time that "no" takes.
        """
        asked, age = self._seconds(), self._age

        def keep(rows: Rows) -> None:
            if age == self._age and not self._writers:
                kept = self._kept if rows else self._nothing
                if len(kept) >= MOST:
                    kept.clear()
                kept[question] = asked, rows

        return keep

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Run a block that writes."""
        self._writers += 1
        self._forget()
        try:
            yield
        finally:
            self._writers -= 1
            self._forget()

    def _forget(self) -> None:
        self._age += 1
        self._kept.clear()
        self._nothing.clear()
