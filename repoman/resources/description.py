"""What the interface can do, for programs: its OpenAPI description."""

from __future__ import annotations

import json
from importlib.resources import files

from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.replies import Reply
from repoman.wire import KEPT_BY_ALL


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/openapi.json``, for everybody: it says nothing of what is in here."""
    description = json.loads(files("repoman").joinpath("openapi.json").read_text("utf-8"))

    @routes.add("GET", "/api/openapi.json")
    async def describe(ask: Ask) -> Reply:
        body = {**description, "servers": [{"url": ask.urls.https}]}
        return Reply(body, headers={"Cache-Control": KEPT_BY_ALL})
