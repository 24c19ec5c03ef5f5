"""A grid-mapfile: which DN is which local user, one pair a line."""

from __future__ import annotations

import re
from pathlib import Path

from repoman.errors import Invalid, Misconfigured
from repoman.gsi.dn import parse_dn
from repoman.model import check_name
from repoman.records import Login

_LINE = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))\s+(\S+)\s*')
_ESCAPE = re.compile(r"((?:\\x[0-9A-Fa-f]{2})+)|\\(.)")


def read_gridmap(path: Path) -> list[Login]:
    """The logins that a file names.

    A line is ``"DN" user``, as Globus has it; of several users the first one
    counts.  Blank lines and those that begin with ``#`` are comments.

    :raises Misconfigured: with every mistake found, one line each.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured([f"{path} cannot be read: {reason}"]) from None
    found, mistakes = [], []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found.append(_read_line(line))
            except Invalid as error:
                mistakes.append(f"{path}:{number}: {error.message}")
    if mistakes:
        raise Misconfigured(mistakes)
    return found


def _read_line(line: str) -> Login:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Invalid('A line is "DN" user.')
    quoted, plain, users = match.groups()
    dn = plain if quoted is None else _ESCAPE.sub(_unescaped, quoted)
    return Login(check_name("user", users.partition(",")[0]), parse_dn(dn))


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1]:
        try:
            return bytes.fromhex(escape[1].replace("\\x", "")).decode()
        except UnicodeDecodeError:
            raise Invalid(f"{escape[1]} is not UTF-8.") from None
    # Our own DNs have escapes too, before these three.
    return escape[0] if escape[2] in "\\/+" else escape[2]
