"""How results look on a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import json
import pprint
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import combining, east_asian_width

from repoman.client.records import Record, last_name

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


_MARKS = ("[OK]", "[FAILED]")
"""What a line begins with that says how a command ended."""


class Lines(str):
    """A text of several lines, in each of which only what is printable was put.

    Any other text is one line, whatever a server has put into it.
    """


class Output:
    """Results on stdout: as text, or each as a JSON document on its line.

    What comes from a server is text like any other: it makes no line of its
    own, moves no cursor, and says of no command that it is done.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, data: Any, text: str | Iterable[str]) -> None:
        """A result: ``data`` as JSON, else ``text``; nothing for empty text.

        :param text: one line; or several, each of them one.
        """
        if self.as_json:
            print(json.dumps(data), flush=True)
            return
        lines = [text] if isinstance(text, str) else [*text]
        if isinstance(text, Lines):
            lines = text.split("\n")
        if any(lines):
            print("\n".join(map(_claiming_nothing, lines)), flush=True)

    def done(self, text: str, **facts: Any) -> None:
        """Something is done, for certain.

        :param facts: what to add in JSON.
        """
        if self.as_json:
            self.show({"done": text, **facts}, "")
        else:
            print(f"[OK]     {printable(text)}", flush=True)

    def say(self, text: str) -> None:
        """Something that happens now; not part of a JSON result."""
        if self.as_json:
            self.note(text)
        else:
            print(_claiming_nothing(text), flush=True)

    def note(self, text: str) -> None:
        """Something to know before it happens; part of no result, so not on stdout."""
        line = json.dumps({"message": text}) if self.as_json else _claiming_nothing(text)
        print(line, file=sys.stderr, flush=True)


def _claiming_nothing(text: str) -> str:
    """A line that cannot be taken for the program's own word on how it ended."""
    line = printable(text)
    return line.replace("[", "?", 1) if line.lstrip().startswith(_MARKS) else line


def printable(text: str) -> str:
    """``text`` as one line, without what could play with a terminal.

    Control characters, line and paragraph separators, and those that change
    the direction of a text (Unicode, annex 9) become question marks.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def as_python(record: Record) -> Lines:
    """A record in the form of the slides: a Python dict with sorted keys."""
    return Lines(pprint.pformat(record))  # which escapes what is not printable


def as_lines(record: Record) -> Lines:
    """A record as right-aligned ``key : value`` lines, sorted."""
    width = max(map(len, record))
    return _joined(f"{printable(key):>{width}} : {_value(record[key])}" for key in sorted(record))


def aligned(pairs: Sequence[tuple[str, object]]) -> Lines:
    """``name: value`` lines with the values below each other."""
    width = max(len(name) for name, _ in pairs) + 1
    return _joined(f"{name + ':':<{width}} {printable(str(value))}" for name, value in pairs)


def _joined(lines: Iterable[str]) -> Lines:
    return Lines("\n".join(lines))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """Columns below their names; the last one as long as it is."""
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return _joined(
        "  ".join(c + " " * (w - _width(c)) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _width(text: str) -> int:
    """How many columns of a terminal a text takes (Unicode, annex 11)."""
    if text.isascii():
        return len(text)
    wide = sum(east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(combining(c) != 0 for c in text)


def size(count: int | None) -> str:
    """A number of bytes for people."""
    if count is None:
        return "-"
    power = 0
    while count >= 1024 ** (power + 1) and power < len(_UNITS) - 1:
        power += 1
    return f"{count / 1024**power:.1f} {_UNITS[power]}" if power else f"{count} B"


def images_table(images: Iterable[Record]) -> Lines:
    """Images as the client of 2012 listed them."""
    head = ("Image Name", "Owner", "Hypervisor", "Size", "Last Modified", "Description")
    return table(
        head,
        [
            (
                i["name"],
                i["owner_user_name"],
                i["hypervisor"] or "",
                size(i["size"]),
                i["modified"] or "",
                i["description"] or "",
            )
            for i in images
        ],
    )


def offers_table(offers: Iterable[Record]) -> Lines:
    """Offers, each with what one wants to know before one accepts it."""
    head = ("Image", "Offered To", "Version", "Size", "Until", "Description")
    return table(
        head,
        [
            (
                f"{o['owner_user_name']}/{o['name']}",
                o["recipient_user_name"],
                str(o["version"]),
                size(o["bytes"]),
                o["ends"] or "",
                o["description"] or "",
            )
            for o in offers
        ],
    )


def users_table(users: Iterable[Record]) -> Lines:
    """Users with what one may see of them."""
    return table(
        ("User Name", "Full Name", "Groups", "Client DN"),
        [
            (
                u["user_name"],
                u["full_name"] or "",
                ",".join(map(last_name, u["groups"])),
                u["client_dn"] or "",
            )
            for u in users
        ],
    )


def groups_table(groups: Iterable[Record]) -> Lines:
    """Groups with members and permissions."""
    return table(
        ("Group Name", "Users", "Permissions"),
        [
            (g["name"], ",".join(map(last_name, g["users"])), ",".join(g["permissions"]))
            for g in groups
        ],
    )


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, dict):
        return "; ".join(f"{printable(k)}: {_value(v)}" for k, v in sorted(value.items()))
    return "" if value is None else printable(str(value))
