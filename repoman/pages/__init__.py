"""The repository in a browser: pages made here, for people.

They are another edge beside :mod:`repoman.resources`: the same repository, the
same policy, the same decoding of what comes in.
"""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred

from repoman.errors import RepomanError
from repoman.history import History
from repoman.interfaces import Clock
from repoman.pages import (
    activity,
    administration,
    answer,
    changes,
    creating,
    files,
    groups,
    identity,
    image,
    images,
    offers,
    upload,
    users,
)
from repoman.pages.tokens import Tokens
from repoman.repository import Repository
from repoman.resources.asking import Routes
from repoman.resources.replies import Voice
from repoman.wire import Urls


class Pages:
    """All that is not below ``/api``.

    :param secret: for the tokens in forms.
    :param history: of the daemon's last day.
    """

    def __init__(
        self, repository: Repository, urls: Urls, secret: bytes, clock: Clock, history: History
    ) -> None:
        app = Klein()
        app.url_map.strict_slashes = False
        app.url_map.merge_slashes = False
        voice = Voice(answer.send, answer.refuse)
        self._routes = Routes(app, repository.accounts, urls, repository.audit, voice)
        tokens = Tokens(secret, clock)
        identity.add_routes(self._routes, repository, tokens)
        images.add_routes(self._routes, repository, tokens, clock)
        image.add_routes(self._routes, repository, tokens, clock)
        changes.add_routes(self._routes, repository, tokens)
        creating.add_routes(self._routes, repository, tokens)
        offers.add_routes(self._routes, repository, tokens)
        upload.add_routes(self._routes, repository, tokens)
        users.add_routes(self._routes, repository, tokens)
        groups.add_routes(self._routes, repository, tokens)
        administration.add_routes(self._routes, repository, tokens)
        activity.add_routes(self._routes, repository, history)
        self._resource = app.resource()

    def render(self, request: Any) -> Any:
        """Answer a request."""
        if files.is_asked_for(request):
            files.serve(request)
            return b""
        return self._resource.render(request)

    def refuse(self, request: Any, error: RepomanError) -> None:
        """Write a refusal, but do not finish the request."""
        answer.refuse(request, error)

    def settled(self) -> Deferred[Any]:
        """Fires when all that is under way now has ended."""
        return self._routes.settled()
