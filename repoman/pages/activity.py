"""What the server does and did, for administrators."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.template import Tag

from repoman.audit import DONE, REFUSED, Change, Entry
from repoman.history import History, Refusal
from repoman.pages.answer import HEADERS, Answer, page
from repoman.pages.markup import choice, el, facts, field, link, moment, size
from repoman.pages.plots import day, shares
from repoman.policy import authorize
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.audit import PAGE, audit_query
from repoman.transfers import Transfer
from repoman.wire import KEPT_BY_NOBODY

LARGEST = 12
"""Owners in the plot of rooms."""

SHOWN = 15
"""Refusals on the page."""

EVENT_SECONDS = 2.0
"""Seconds between two events of the running transfers."""

STREAM_SECONDS = 60.0
"""How long one stream lasts; then the browser asks again, and who asks is judged again."""

COLUMNS = ("Who", "What", "Moved", "Rate", "Left", "From")
"""Of the running transfers."""


def add_routes(routes: Routes, repository: Repository, history: History) -> None:
    """``/activity`` and below."""

    @routes.add("GET", "/activity")
    async def show(ask: Ask) -> Answer:
        authorize("activity.read", ask.caller)
        running = await repository.transfers.listing(ask.caller)
        rooms = await repository.users.largest(ask.caller, LARGEST)
        return page(
            ask, "Activity", _running(running), _day(history),
            el("section", el("h2", "Room"), shares("The owners with most bytes", rooms,
                                                   lambda v: size(int(v)))),
            _refusals(history.refusals()[:SHOWN]), _limits(repository),
            el("p", link("/activity/audit", "Who changed what: the audit")),
        )  # fmt: skip

    @routes.add("GET", "/activity/transfers")
    async def stream(ask: Ask) -> None:
        await repository.transfers.listing(ask.caller)  # may they?
        await _stream(ask, repository)

    @routes.add("GET", "/activity/audit")
    async def audit(ask: Ask) -> Answer:
        authorize("audit.read", ask.caller)
        args = ask.request.args
        ask.request.args = {name: values for name, values in args.items() if values[-1]}
        wanted = audit_query(ask)
        wanted = evolve(wanted, limit=min(wanted.limit, PAGE))
        found = await repository.audit.listing(ask.caller, evolve(wanted, limit=wanted.limit + 1))
        shown, following = found[: wanted.limit], None
        if len(found) > len(shown):
            query = {n: v[-1] for n, v in ask.request.args.items()} | {"after": shown[-1].number}
            following = el("nav", link(f"/activity/audit?{urlencode(query)}", "Older"),
                           class_="pages", aria_label="Pages")  # fmt: skip
        return page(ask, "Audit", _search(ask), _entries(shown), following)


async def _stream(ask: Ask, repository: Repository) -> None:
    """Send the running transfers again and again, as server-sent events (HTML section 9.2)."""
    request, reactor = ask.request, ask.request.site.reactor
    gone: list[Any] = []
    request.notifyFinish().addBoth(gone.append)
    for name, value in {**HEADERS, "Cache-Control": KEPT_BY_NOBODY}.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", "text/event-stream")
    request.write(b"retry: 1000\n\n")
    end = reactor.seconds() + STREAM_SECONDS
    while not gone and not request.site.draining and reactor.seconds() < end:
        rows = [transfer_cells(t) for t in await repository.transfers.listing(ask.caller)]
        request.write(b"data: " + json.dumps(rows).encode() + b"\n\n")
        waiting: Deferred[None] = deferLater(reactor, EVENT_SECONDS)
        await waiting


def transfer_cells(transfer: Transfer) -> list[str]:
    """What is shown of a running transfer, in the order of COLUMNS."""
    moved = size(transfer.moved)
    if transfer.total is not None:
        moved += f" of {size(transfer.total)}"
    left = "–" if transfer.remaining is None else f"{transfer.remaining:.0f} s"
    what = f"{transfer.direction} {transfer.path.removeprefix('/api/').removeprefix('images/raw/')}"
    who = transfer.user or transfer.dn or "nobody in particular"
    through = (
        f"{transfer.address}, through {transfer.daemon}" if transfer.daemon else transfer.address
    )
    return [who, what, moved, f"{size(int(transfer.rate))}/s", left, through]


def _running(running: list[Transfer]) -> Tag:
    rows = [el("tr", [el("td", cell) for cell in transfer_cells(t)]) for t in running]
    return el(
        "section", el("h2", "Running now"),
        el("div",
           el("table", el("thead", el("tr", [el("th", c, scope="col") for c in COLUMNS])),
              el("tbody", rows, id="transfers", data_stream="/activity/transfers")),
           class_="scroll", tabindex="0", role="region", aria_label="Running transfers"),
        el("p", "Nothing is on its way.", class_="quiet none", hidden=bool(rows)),
    )  # fmt: skip


def _day(history: History) -> Tag:
    spans = history.spans()
    return el(
        "section", el("h2", "The last day"),
        el("div",
           day("Requests", [s.requests for s in spans], lambda v: f"{v:.0f} in ten minutes"),
           day("Longest stall", [s.stall for s in spans], lambda v: f"{v * 1000:.0f} ms"),
           day("Bytes in", [s.received for s in spans], lambda v: size(int(v))),
           day("Bytes out", [s.sent for s in spans], lambda v: size(int(v))), class_="plots"),
        el("p", "Since the start of the daemon; bytes count when their request ends.",
           class_="quiet"),
    )  # fmt: skip


def _limits(repository: Repository) -> Tag:
    limits = repository.images.limits
    return el(
        "section", el("h2", "Limits"),
        facts([
            ("Images of one user", str(limits.images)),
            ("Hypervisors that one user's images add", str(limits.hypervisors)),
            ("Users and groups that one image is shared with", str(limits.shares)),
            ("Refusals of one user in an hour that are noted", str(repository.audit.refusals)),
        ]),
        el("p", "They are set in [limits] of the configuration.", class_="quiet"),
    )  # fmt: skip


def _refusals(refusals: list[Refusal]) -> Tag:
    rows = [
        el("tr", el("td", moment(r.time)), el("td", r.who or "no certificate"),
           el("td", r.asked), el("td", r.reason or str(r.status)))
        for r in refusals
    ]  # fmt: skip
    names = ("When", "Who", "Asked for", "Told")
    table = _table("Recent refusals", names, rows) if rows else el("p", "None.", class_="quiet")
    return el("section", el("h2", "Recent refusals"), table)


def _table(label: str, names: tuple[str, ...], rows: list[Tag]) -> Tag:
    return el(
        "div",
        el("table", el("thead", el("tr", [el("th", n, scope="col") for n in names])),
           el("tbody", rows)),
        class_="scroll", tabindex="0", role="region", aria_label=label,
    )  # fmt: skip


def _search(ask: Ask) -> Tag:
    fields = [field(n, n.capitalize(), ask.query(n)) for n in ("user", "action", "subject")]
    outcomes = [("", "any"), (DONE, DONE), (REFUSED, REFUSED)]
    return el(
        "form",
        el("div", fields, choice("outcome", "Outcome", outcomes, ask.query("outcome")),
           class_="fields"),
        el("p", el("button", "Search", class_="quiet")),
        action="/activity/audit", role="search", class_="search",
    )  # fmt: skip


def _entries(entries: list[Entry]) -> Tag:
    if not entries:
        return el("p", "Nothing is like that.", class_="empty")
    names = ("When", "Who", "From", "Action", "Subject", "Outcome", "Detail")
    return el("section", _table("Audit", names, [_entry(entry) for entry in entries]))


def _detail(change: Change) -> str:
    said = {k: v for k, v in change.detail.items() if v not in (None, "", [])}
    words = (f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in said.items())
    return "; ".join(words)[:500]


def _entry(entry: Entry) -> Tag:
    origin, change = entry.origin, entry.change
    return el(
        "tr", el("td", moment(entry.time)), el("td", origin.user or origin.dn or "nobody"),
        el("td", origin.address), el("td", change.action), el("td", change.subject),
        el("td", change.outcome), el("td", el("code", _detail(change))),
    )  # fmt: skip
