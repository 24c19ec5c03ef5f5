"""Statements that the server plans once for each connection.

psycopg2 fills placeholders in on our side, so the server sees a new statement
each time; for the few queries that nearly every request makes, planning costs
more than running them.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import count
from typing import Any

from attrs import frozen

from repoman.database.link import Parameters

_numbers = count(1)
_PLACEHOLDER = re.compile(r"%(?:\((\w+)\))?s|%%")


@frozen
class Prepared:
    """A statement in the server's own notation.

    :ivar name: by which a connection knows it.
    :ivar text: with ``$1``, ``$2``, ...
    :ivar names: what fills them, by name; numbers for positions.
    """

    name: str
    text: str
    names: tuple[str | int, ...]

    def values(self, parameters: Parameters) -> list[object]:
        """The parameters in the order of the text."""
        given: Any = parameters  # a mapping or a sequence, as the names are
        return [given[name] for name in self.names]

    @property
    def call(self) -> str:
        """What runs it, with psycopg2's placeholders."""
        values = ", ".join(["%s"] * len(self.names))
        return f"EXECUTE {self.name}" + (f" ({values})" if values else "")

    @property
    def introduction(self) -> str:
        """What makes it known to a connection; to be followed by :attr:`call`."""
        return f"PREPARE {self.name} AS {self.text}; ".replace("%", "%%")


@cache
def prepared(sql: str) -> Prepared:
    """The prepared form of a statement with psycopg2's placeholders.

    Made for the statements of our own code: each is kept for ever.
    """
    names: list[str | int] = []

    def number(match: re.Match[str]) -> str:
        if match.group() == "%%":
            return "%"
        name: str | int = match.group(1) or len(names)
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PLACEHOLDER.sub(number, sql)
    return Prepared(f"repoman_{next(_numbers)}", text, tuple(names))
