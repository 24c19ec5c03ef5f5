"""The rows of an original Repoman's database, as they are."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2

from repoman.errors import Misconfigured

TABLES = {
    "user": "id user_name email full_name expires suspended deleted certificate_id quota_id",
    "certificate": "id client_dn issuer_dn",
    "quota": "id max_storage",
    "groups": "id protected name",
    "permission": "id permission_name",
    "image": "id uuid expires size name description os_variant os_type os_arch hypervisor deleted"
    " read_only raw_uploaded unauthenticated_access checksum_id owner_id shared_id",
    "checksum": "id ctype cvalue",
    "image_share": "id enabled",
    "user_group_association": "user_id group_id",
    "group_permission_association": "group_id permission_id",
    "imageshare_user_association": "imageshare_id user_id",
    "imageshare_group_association": "imageshare_id group_id",
}
"""Its tables, and the columns of theirs that are read."""

Rows = dict[str, list[dict[str, Any]]]


def read_original(source: str) -> Rows:
    """Read all tables.  Blocks.

    :param source: a SQLite file, or PostgreSQL's connection string or URL.
    :raises Misconfigured: it is no database of the original's.
    """
    try:
        connection: Any
        if Path(source).exists():
            connection = sqlite3.connect(f"{Path(source).absolute().as_uri()}?mode=ro", uri=True)
        else:
            connection = psycopg2.connect(source)
            connection.set_session(readonly=True)
        with closing(connection):
            return {table: _rows(connection, table, TABLES[table].split()) for table in TABLES}
    except (sqlite3.Error, psycopg2.Error) as error:
        reason = " ".join(str(error).split())
        raise Misconfigured(
            [f"The original's database cannot be read: {reason}: name its file or its DSN"]
        ) from None


def _rows(connection: Any, table: str, columns: list[str]) -> list[dict[str, Any]]:
    with closing(connection.cursor()) as cursor:
        cursor.execute(f'SELECT {", ".join(columns)} FROM "{table}" ORDER BY 1, 2')  # noqa: S608 ours
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
