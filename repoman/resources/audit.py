"""Who changed what, for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from attrs import evolve

from repoman.audit import DONE, REFUSED, AuditQuery, Entry
from repoman.errors import Invalid
from repoman.policy import authorize
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import read_moment
from repoman.resources.listing import read_limit
from repoman.resources.long_lists import send_list
from repoman.wire import entry_json

BATCH = 50
"""Rows that are read at one go, at most."""

PAGE = 100
"""Rows of a page, unless the query says."""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/audit``."""

    @routes.add("GET", "/api/audit")
    async def listing(ask: Ask) -> None:
        authorize("audit.read", ask.caller)
        wanted, headers = audit_query(ask), {}
        # One more than asked for shows whether there is a next page.
        more = evolve(wanted, limit=wanted.limit + 1)
        numbers = await repository.audit.numbers(ask.caller, more)
        page = numbers[: wanted.limit]
        if len(numbers) > len(page):
            headers["Link"] = f'<{_next_page(ask, page[-1])}>; rel="next"'

        async def rows(place: int | None, count: int) -> list[tuple[int, Entry]]:
            left = sum(place is None or number < place for number in page)
            following = evolve(wanted, limit=min(count, left), after=place or wanted.after)
            return [(e.number, e) for e in await repository.audit.listing(ask.caller, following)]

        await send_list(ask.request, rows, entry_json, most=BATCH, headers=headers)


def audit_query(ask: Ask) -> AuditQuery:
    """What the query of a request asks for.

    :raises Invalid: it makes no sense.
    """
    outcome = ask.query("outcome")
    if outcome not in (None, DONE, REFUSED):
        raise Invalid(f"outcome: must be {DONE} or {REFUSED}.", field="outcome")
    return AuditQuery(
        user=ask.query("user"),
        action=ask.query("action"),
        subject=ask.query("subject"),
        outcome=outcome,
        since=_moment(ask, "since"),
        until=_moment(ask, "until"),
        after=_number(ask.query("after")),
        limit=read_limit(ask.query("limit")) or PAGE,
    )


def _moment(ask: Ask, name: str) -> datetime | None:
    text = ask.query(name)
    try:
        return read_moment(text) if text else None
    except (ValueError, OverflowError):
        raise Invalid(
            f"{name}: must be a time such as 2026-12-31 or 2026-12-31T23:59:59Z.", field=name
        ) from None


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid("after: must be what an earlier page's Link had.", field="after")
    return int(text)


def _next_page(ask: Ask, last: int) -> str:
    query: dict[str, Any] = {name: values[-1] for name, values in ask.request.args.items()}
    return f"{ask.urls.https}/api/audit?{urlencode({**query, 'after': last})}"
