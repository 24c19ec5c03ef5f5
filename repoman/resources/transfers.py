"""What is on its way now, for administrators."""

from __future__ import annotations

from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.replies import Reply
from repoman.wire import transfer_json


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/transfers``."""

    @routes.add("GET", "/api/transfers")
    async def listing(ask: Ask) -> Reply:
        running = await repository.transfers.listing(ask.caller)
        return Reply([transfer_json(transfer) for transfer in running])
