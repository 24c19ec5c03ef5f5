"""The style sheet, the script and the icon."""

from __future__ import annotations

from typing import Any

from repoman.errors import NoSuchRoute
from repoman.pages.answer import Answer, refuse, send
from repoman.pages.assets import FILES, KINDS

KEPT = "public, max-age=31536000, immutable"
"""For an address that changes with the content (RFC 8246)."""


ICON = "icon.svg"
"""What a browser gets that asks by itself for the icon of other answers of ours."""


def is_asked_for(request: Any) -> bool:
    """The request is for a file, not for a page."""
    return bool(request.postpath[0] == b"assets" or request.path == b"/favicon.ico")


def serve(request: Any) -> None:
    """Write the file that the path names: for everybody, nobody is looked up."""
    name = ICON if request.path == b"/favicon.ico" else _text(request.postpath[1:])
    if name not in FILES or request.method not in (b"GET", b"HEAD"):
        refuse(request, NoSuchRoute("There is nothing at this address."))
        return
    kept = KEPT if b"?" in request.uri else "public, max-age=86400"
    kind = KINDS[name.rpartition(".")[2]]
    send(request, Answer(FILES[name], kind, headers={"Cache-Control": kept}))


def _text(segments: list[bytes]) -> str:
    return b"/".join(segments).decode("ascii", "replace")
