"""Who the server thinks you are."""

from __future__ import annotations

from repoman.policy import identified
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.listing import wants_full
from repoman.resources.replies import Reply
from repoman.wire import KEPT_BY_NOBODY, credential_json, user_json


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/whoami``."""

    @routes.add("GET", "/api/whoami")
    async def whoami(ask: Ask) -> Reply:
        user = identified(ask.caller)
        profile = await repository.users.profile(ask.caller, user.user_name)
        body = user_json(profile, ask.urls, private=True, full=wants_full(ask))
        if wants_full(ask) and ask.caller.identity is not None:
            body["credential"] = credential_json(ask.caller.identity)
        return Reply(body, headers={"Cache-Control": KEPT_BY_NOBODY})
