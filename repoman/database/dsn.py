"""What libpq is told about the database: the administrator's string and our settings."""

from __future__ import annotations

import os

from psycopg2 import Error
from psycopg2.extensions import parse_dsn

from repoman.errors import Misconfigured

_DATA_LOSS_MS = 10_000
"""How long sent data may stay unacknowledged before the kernel gives a link up."""


def connection_parameters(
    dsn: str, *, application_name: str, statement_timeout: float
) -> dict[str, str]:
    """Parse ``dsn`` and add what every connection needs.

    Server settings in the administrator's own ``options`` win over ours.
    Sessions are read-only unless a transaction says otherwise, so that a
    single query may be sent again when its link broke.  Of several servers
    ``target_session_attrs=read-write`` finds the one that is no standby.

    :param dsn: key/value string or URL, as libpq takes them.
    :param statement_timeout: in seconds.
    :raises Misconfigured: with no part of ``dsn`` in it, for a password may
        stand anywhere in a string that cannot be parsed.
    """
    try:
        given: dict[str, str] = parse_dsn(dsn)
    except (Error, UnicodeError):
        raise Misconfigured(
            ["[database] dsn: neither a libpq key/value string nor a postgresql:// URL"]
        ) from None
    _check_url(dsn, given)
    # "read-write" looks at the sessions' default, which we make read-only.
    attributes = given.get("target_session_attrs", "")
    given |= {"target_session_attrs": "primary"} if attributes == "read-write" else {}
    milliseconds = round(statement_timeout * 1000)
    settings = {
        "statement_timeout": milliseconds,
        "lock_timeout": milliseconds // 2,
        "idle_in_transaction_session_timeout": milliseconds,
        "default_transaction_read_only": "on",
        "TimeZone": "UTC",
    }
    ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return {
        "keepalives": "1",
        "keepalives_idle": "10",
        "keepalives_interval": "3",
        "keepalives_count": "3",
        "tcp_user_timeout": str(_DATA_LOSS_MS),
        "application_name": application_name,
        **given,
        "client_encoding": "UTF8",
        "options": f"{ours} {given.get('options', '')}".strip(),
    }


def ignore_environment() -> None:
    """Let libpq know only what it is told (PostgreSQL's manual, "Environment Variables").

    For a server of our own: what the environment says is meant for another, and would lead away
    from ours.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _check_url(dsn: str, given: dict[str, str]) -> None:
    # libpq cuts a URL at the first "@" or "/": an unescaped one in a password moves
    # its rest into host, port or database, from where libpq quotes it in messages.
    if "://" not in dsn:
        return
    misplaced = any("@" in given.get(part, "") for part in ("host", "port", "dbname"))
    ports = given.get("port", "").replace(",", "")
    if misplaced or (ports and not ports.isdigit()):
        raise Misconfigured(
            ["[database] dsn: percent-encode the characters @ / : ? # % in user and password"]
        )
