"""What a page answers with: HTML in its frame, another address, a file of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from repoman.errors import NoSuchRoute, NotIdentified, RepomanError
from repoman.model import Caller
from repoman.pages.frame import frame
from repoman.pages.markup import TOKEN, Content, el, link, rendered
from repoman.resources import replies
from repoman.resources.asking import READING, Ask
from repoman.wire import KEPT_BY_CALLER, KEPT_BY_NOBODY, REASONS, status_of

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What a page may do in a browser: nothing but show itself and talk to us."""


@frozen
class Answer:
    """An answer with a small body."""

    body: bytes = b""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)


def page(
    ask: Ask, title: str, *content: Content, beside: Content = None, status: int = 200
) -> Answer:
    """HTML with our head around ``content``.

    :param beside: what stands beside the title.
    """
    body = _html(ask.request, ask.caller, title, content, beside)
    # Without a token: kept by the browser for "back", never shown without asking us again.  By no
    # other cache, for a page may say what is wrong with the certificate of nobody in particular.
    is_kept = TOKEN not in body and ask.request.method in READING
    kept = KEPT_BY_CALLER if is_kept else KEPT_BY_NOBODY
    return Answer(body, status=status, headers={"Cache-Control": kept})


def see_other(path: str) -> Answer:
    """Look there now: what was asked for is done (RFC 9110 section 15.4.4)."""
    return Answer(status=303, headers={"Location": path})


def send(request: Any, answer: Answer) -> None:
    """Write ``answer``, but do not finish the request."""
    for name, value in {**HEADERS, **answer.headers}.items():
        request.setHeader(name, value)
    if answer.body:
        request.setHeader("Content-Type", answer.kind)
    request.setHeader("Content-Length", str(len(answer.body)))
    reason = REASONS.get(answer.status)
    request.setResponseCode(answer.status, reason.encode() if reason else None)
    request.write(answer.body)


def refuse(request: Any, error: RepomanError) -> None:
    """Write a refusal as a page, but do not finish the request."""
    is_program = "text/html" not in (request.getHeader("accept") or "")
    if request.startedWriting or (is_program and isinstance(error, NoSuchRoute)):
        replies.refuse(request, error)  # no page was meant: an address of the API, misspelt
        return
    request.refusal = error.message
    caller = getattr(request, "caller", None) or Caller(None)
    status = status_of(error)
    content = [el("p", error.message, class_="refusal", role="alert")]
    if isinstance(error, NotIdentified):
        content.append(el("p", link("/certificate", "How to come with a certificate")))
    elif request.method == b"POST":
        content.append(el("p", link(_form_of(request), "Go back")))
    headers = {**replies.special_headers(error), "Cache-Control": KEPT_BY_NOBODY}
    body = _html(request, caller, error.title, content)
    send(request, Answer(body, status=status, headers=headers))


def _form_of(request: Any) -> str:
    """Where the form stood that was sent, if on a page of ours."""
    place, own = request.getHeader("referer") or "", f"https://{request.getHeader('host')}/"
    return "/" + place.removeprefix(own).lstrip("/") if place.startswith(own) else "/"


def _html(
    request: Any, caller: Caller, title: str, content: Content, beside: Content = None
) -> bytes:
    path = request.path.decode("ascii", "replace")
    return b"<!DOCTYPE html>\n" + rendered(frame(caller, path, title, content, beside))
