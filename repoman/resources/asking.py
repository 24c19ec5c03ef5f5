"""What every route has in common: who asks, and how they get their answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from repoman.audit import ORIGIN, Origin
from repoman.errors import (
    ClientGone,
    Invalid,
    MethodNotAllowed,
    NoSuchRoute,
    RepomanError,
)
from repoman.model import Caller
from repoman.repository.accounts import Accounts
from repoman.repository.audit import Audit
from repoman.resources.replies import JSON, Voice
from repoman.wire import KEPT_BY_ALL, KEPT_BY_CALLER, Urls, status_of

log = Logger()


QUERY_LIMIT = 2000
"""The longest parameter of a query, in characters; a DN may have so many."""


@frozen
class Ask:
    """A request, and who makes it."""

    request: Any
    caller: Caller
    urls: Urls

    def query(self, name: str) -> str | None:
        """A parameter of the query; the last one, if it is given twice.

        :raises Invalid: it is not text, or is longer than anything that it could mean.
        """
        values = self.request.args.get(name)
        if values and len(values[-1]) > QUERY_LIMIT:
            raise Invalid(f"{name}: at most {QUERY_LIMIT} characters are read here.", field=name)
        return check_text(name, values[-1]) if values else None


def check_text(name: str, value: str) -> str:
    """Return text that a database can hold.

    :raises Invalid: it has NULs or is no Unicode.
    """
    if "\0" not in value:
        with suppress(UnicodeEncodeError):  # half a surrogate pair
            value.encode()
            return value
    raise Invalid(f"{name} has characters that are not text.", field=name)


READING = (b"GET", b"HEAD")
"""The methods that change nothing."""

Route = Callable[..., Awaitable[Any]]
"""Takes an Ask and the names in the path; ``None`` means that it has answered itself."""


class Routes:
    """Adds routes to a Klein application.

    :param voice: in which what the routes return, and refusals, are written.
    """

    def __init__(
        self, app: Klein, accounts: Accounts, urls: Urls, audit: Audit, voice: Voice = JSON
    ) -> None:
        self._app = app
        self._audit = audit
        self._accounts = accounts
        self._urls = urls
        self._voice = voice
        self._running: set[Deferred[None]] = set()
        app.handle_errors(HTTPException)(self._unroutable)

    def add(self, method: str, *paths: str) -> Callable[[Route], Route]:
        """Answer ``method`` on each of ``paths`` by the decorated coroutine function.

        GET answers HEAD too.
        """

        def decorate(route: Route) -> Route:
            for path in paths:
                self._add(method, path, route)
            return route

        return decorate

    def _add(self, method: str, path: str, route: Route) -> None:
        def endpoint(request: Any, **names: str) -> Deferred[None]:
            return detached(self._run(self._answer(request, route, names)))

        self._app.route(path, methods=[method], endpoint=f"{method} {path}")(endpoint)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        work = Deferred.fromCoroutine(coroutine)
        self._running.add(work)
        return work.addBoth(self._ended, work)

    def _ended(self, result: Any, work: Deferred[None]) -> Any:
        self._running.discard(work)
        return result

    def settled(self) -> Deferred[Any]:
        """Fires when all that is under way now has ended, with or without its client."""
        return detached(DeferredList(list(self._running)))

    async def _answer(self, request: Any, route: Route, names: dict[str, str]) -> None:
        try:
            caller = await self._caller(request)
            request.caller = caller
            ORIGIN.set(_origin(request, caller))
            if request.method in READING:
                kept = KEPT_BY_CALLER if caller.user else KEPT_BY_ALL
                request.setHeader("Cache-Control", kept)
            reply = await route(Ask(request, caller, self._urls), **names)
            if reply is not None:
                self._voice.send(request, reply)
        except ClientGone:
            request.abandon()
        except RepomanError as error:
            self._voice.refuse(request, error)
            self._note_refusal(request, error)
        except Exception:
            log.failure("Request {id} failed", id=request.request_id)
            fault = RepomanError(f"A fault of ours; it is logged as {request.request_id}.")
            self._voice.refuse(request, fault)

    def _note_refusal(self, request: Any, error: RepomanError) -> None:
        """Let the audit know what a known user wanted to change and may not."""
        caller = getattr(request, "caller", None)
        if caller and caller.user and request.method not in READING and status_of(error) < 500:
            action = error.rule or request.method.decode("ascii").lower()
            subject = unquote(request.path.decode("ascii", "replace")).removeprefix("/api/")
            self._run(self._audit.refused(caller.user, action, subject, error))

    async def _caller(self, request: Any) -> Caller:
        ORIGIN.set(_origin(request, Caller(None)))  # a first login changes something itself
        peer = request.peer
        if peer is None:
            return Caller(None, reason="This endpoint knows nobody; use https.")
        return await self._accounts.caller(peer.identity, peer.refusal)

    def _unroutable(self, request: Any, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, WrongMethod):
            allowed = sorted(error.valid_methods or ())
            text = f"Only {', '.join(allowed)} can be done here."
            self._voice.refuse(request, MethodNotAllowed(text, allowed=allowed))
        else:
            self._voice.refuse(request, NoSuchRoute("There is nothing at this address."))


def _origin(request: Any, caller: Caller) -> Origin:
    identity = request.peer.identity if request.peer else None
    return Origin(
        user=caller.user.user_name if caller.user else "",
        dn=identity.subject if identity else "",
        address=str(getattr(request.client, "host", "")),
        request_id=request.request_id,
    )


def detached(work: Deferred[Any]) -> Deferred[Any]:
    """Let ``work`` run to its end, whatever becomes of the Deferred that is answered.

    Klein cancels it when the client goes.  The flow of bytes ends by itself
    then; a cancellation would also hit what must not be stopped half-way,
    such as a commit or a query.
    """
    outer: Deferred[Any] = Deferred()
    work.addCallbacks(outer.callback, outer.errback)
    return outer
