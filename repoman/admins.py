"""The file of administrators: ``user_name,email,DN`` lines."""

from __future__ import annotations

from pathlib import Path

from repoman.errors import Invalid, Misconfigured
from repoman.gsi.dn import parse_dn
from repoman.model import check_name
from repoman.repository.accounts import AdminLine
from repoman.texts import check_texts


def read_admins(path: Path | None) -> list[AdminLine]:
    """The administrators that a file names.

    :raises Misconfigured: with every mistake found, one line each.
    """
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Misconfigured([f"[accounts] admins: {path} cannot be read: {reason}"]) from None
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


def _read_line(line: str) -> AdminLine:
    # The DN comes last because it may itself hold commas.
    user_name, email, dn = (part.strip() for part in [*line.split(",", 2), "", ""][:3])
    if not dn:
        raise Invalid("A line is user_name,email,DN.")
    check_texts({"email": email})
    return AdminLine(check_name("user", user_name), email or None, parse_dn(dn))
