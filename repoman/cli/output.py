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


class Output:
    """Results on stdout: as text, or each as a JSON document on its line."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, data: Any, text: str) -> None:
        """A result: ``data`` as JSON, else ``text``; nothing for empty text."""
        if self.as_json:
            print(json.dumps(data), flush=True)
        elif text:
            _print(text)

    def done(self, text: str, **facts: Any) -> None:
        """Something is done, for certain.

        :param facts: what to add in JSON.
        """
        self.show({"done": text, **facts}, f"[OK]     {text}")

    def note(self, text: str) -> None:
        """What one should know besides the result; on stderr."""
        print(json.dumps({"message": text}) if self.as_json else printable(text), file=sys.stderr)

    def say(self, text: str) -> None:
        """Something that happens now; not part of a JSON result."""
        if self.as_json:
            print(json.dumps({"message": text}), file=sys.stderr)
        else:
            _print(text)


def _print(text: str) -> None:
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def printable(text: str) -> str:
    """``text`` without the control characters that could play with a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def as_python(record: Record) -> str:
    """A record in the form of the slides: a Python dict with sorted keys."""
    return pprint.pformat(record)


def as_lines(record: Record) -> str:
    """A record as right-aligned ``key : value`` lines, sorted."""
    width = max(map(len, record))
    return "\n".join(f"{key:>{width}} : {_value(record[key])}" for key in sorted(record))


def aligned(pairs: Sequence[tuple[str, object]]) -> str:
    """``name: value`` lines with the values below each other."""
    width = max(len(name) for name, _ in pairs) + 1
    return "\n".join(f"{name + ':':<{width}} {printable(str(value))}" for name, value in pairs)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns below their names; the last one as long as it is."""
    lines = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
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


def images_table(images: Iterable[Record]) -> str:
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


def offers_table(offers: Iterable[Record]) -> str:
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


def users_table(users: Iterable[Record]) -> str:
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


def groups_table(groups: Iterable[Record]) -> str:
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
        return "; ".join(f"{k}: {_value(v)}" for k, v in sorted(value.items()))
    return "" if value is None else printable(str(value))
