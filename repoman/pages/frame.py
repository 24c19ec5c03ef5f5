"""What is around the content of every page."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.web.template import Tag

from repoman.model import Caller
from repoman.pages.assets import ICON, SCRIPT, STYLE
from repoman.pages.markup import Content, el, link

NAME = "Repoman"


def frame(caller: Caller, path: str, title: str, content: Content, beside: Content = None) -> Tag:
    """A whole document.

    :param path: of this page.
    :param beside: what stands beside the title.
    """
    return el(
        "html",
        el(
            "head",
            el("meta", charset="utf-8"),
            el("title", f"{title} · {NAME}"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("link", rel="stylesheet", href=STYLE),
            el("link", rel="icon", href=ICON, type="image/svg+xml"),
            el("script", src=SCRIPT, defer=True),
        ),
        el(
            "body",
            link("#content", "To the content", class_="skip"),
            _head(caller, path),
            el("main", el("div", el("h1", title), beside, class_="title"), content, id="content"),
        ),
        lang="en",
    )  # fmt: skip


def _head(caller: Caller, path: str) -> Tag:
    places = [_place(target, words, path) for target, words in _places(caller)]
    return el(
        "header",
        link("/", NAME, class_="brand"),
        el("nav", el("ul", [el("li", place) for place in places]), aria_label="Repository"),
    )


def _place(target: str, words: str, path: str) -> Tag:
    return link(target, words, aria_current="page" if target == path else None)


def _places(caller: Caller) -> Iterator[tuple[str, str]]:
    user = caller.user
    if user is None:
        yield from (("/", "Public images"), ("/certificate", "Your certificate"))
        return
    yield from (("/", "Mine"), ("/shared", "Shared"), ("/public", "Public"))
    if user.is_admin:
        yield from (
            ("/all", "All"), ("/users", "Users"), ("/groups", "Groups"), ("/activity", "Activity"),
        )  # fmt: skip
    yield "/me", user.user_name
