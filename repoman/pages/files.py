"""The style sheet, the script and the icon."""

from __future__ import annotations

from typing import Any

from repoman.errors import NoSuchRoute
from repoman.pages.answer import Answer, refuse, send
from repoman.pages.assets import FILES, ICON, KINDS, SCRIPT, STYLE
from repoman.wire import KEPT_BY_ALL

KEPT = "public, max-age=31536000, immutable"
"""For an address that changes with the content (RFC 8246); for that alone, or what is here now
would for a year be that of another version, which names it so."""

DEFAULT_ICON = "icon.svg"
"""What a browser gets that asks by itself for the icon of other answers of ours."""


def is_asked_for(request: Any) -> bool:
    """The request is for a file, not for a page."""
    return bool(request.postpath[0] == b"assets" or request.path == b"/favicon.ico")


def serve(request: Any) -> None:
    """Write the file that the path names: for everybody, nobody is looked up."""
    name = DEFAULT_ICON if request.path == b"/favicon.ico" else _text(request.postpath[1:])
    if name not in FILES or request.method not in (b"GET", b"HEAD"):
        refuse(request, NoSuchRoute("There is nothing at this address."))
        return
    is_exact = request.uri.decode("ascii", "replace") in (STYLE, SCRIPT, ICON)
    kept = KEPT if is_exact else KEPT_BY_ALL
    kind = KINDS[name.rpartition(".")[2]]
    send(request, Answer(FILES[name], kind, headers={"Cache-Control": kept}))


def _text(segments: list[bytes]) -> str:
    return b"/".join(segments).decode("ascii", "replace")
