"""Whose page made a browser ask.

A browser shows its client certificate by itself, as it does with cookies,
whichever site's page makes it ask: with a form or a picture any page could
act in the name of its visitor.  But it also says whose page that was: in
Sec-Fetch-Site (W3C Fetch Metadata), and with all that may change something in
Origin (RFC 6454 section 7).  Pages cannot change these fields, and programs
send neither.
"""

from __future__ import annotations

from typing import Any

from repoman.policy import protected


def check_origin(request: Any, *, by_browser: bool = False) -> None:
    """Do nothing, if no page of another site made this request.

    Links to us may be followed from anywhere.

    :param by_browser: it comes from a form of ours, so a browser must have said whose.
    :raises Protected: another site's page did, or a browser does not say.
    """
    site, origin = request.getHeader("sec-fetch-site"), request.getHeader("origin")
    own = f"https://{request.getHeader('host')}"
    elsewhere = site not in (None, "same-origin", "none") and not _follows_a_link(request)
    silent = by_browser and site is None and origin is None
    if elsewhere or origin not in (None, own) or silent:
        raise protected("request.elsewhere")


def _follows_a_link(request: Any) -> bool:
    # Into a window, or ("save link as") into a file, which is for nothing and so "empty"; the first
    # browsers to say a mode named no destination, and had another mode for frames.  Not into a
    # frame: what one shows can be found out, and clicked on.  Nor ahead of a click: a page has that
    # done, not a person.  No script can ask for a navigation without there being one.
    mode, shown = request.getHeader("sec-fetch-mode"), request.getHeader("sec-fetch-dest")
    ahead = "prefetch" in (request.getHeader("sec-purpose") or "")
    followed = mode == "navigate" and shown in ("document", "empty", "", None) and not ahead
    return bool(request.method == b"GET" and followed)
