"""A grid-mapfile: which DN is which local user, one pair a line."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path

from repoman.errors import Invalid, Misconfigured
from repoman.gsi.dn import parse_dn
from repoman.model import check_name
from repoman.user_records import Login

_LINE = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))\s+(\S+)\s*')
# These keep their backslash: a DN in our own form has escapes too, and OpenSSL's has bytes.
_ESCAPE = re.compile(r"\\(?![\\/+]|x[0-9A-Fa-f]{2})(.)|\\\\")


def read_gridmap(path: Path) -> tuple[list[Login], list[str]]:
    """The logins that a file names, and its mistakes, a line each.

    A line is ``"DN" user``, as Globus has it; of several users the first one
    counts.  Blank lines and those that begin with ``#`` are comments.  A line
    that is not understood costs nothing but itself.

    :raises Misconfigured: the file cannot be read.
    """
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        raise Misconfigured([f"{path} cannot be read: {error.strerror}"]) from None
    found, mistakes = [], []
    for number, line in enumerate(map(bytes.strip, lines), 1):
        if line and not line.startswith(b"#"):
            try:
                found.append(_read_line(line.decode()))
            except UnicodeDecodeError:
                mistakes.append(f"{path}:{number}: The line is not UTF-8.")
            except Invalid as error:
                mistakes.append(f"{path}:{number}: {error.message}")
    return found, mistakes


def _read_line(line: str) -> Login:
    match = _LINE.fullmatch(line)
    if match is None:
        raise Invalid('A line is "DN" user.')
    quoted, plain, users = match.groups()
    dn = plain if quoted is None else _ESCAPE.sub(_plain, quoted)
    return Login(check_name("user", users.partition(",")[0]), parse_dn(dn))


def _plain(escape: re.Match[str]) -> str:
    return escape[1] or escape[0]
