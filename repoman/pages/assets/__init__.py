"""The files that pages are shown with, by addresses that change with their content."""

from __future__ import annotations

import hashlib
from importlib.resources import files

KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
         "svg": "image/svg+xml"}  # fmt: skip
"""Media types by the ends of names."""

FILES = {
    name: files(__name__).joinpath(name).read_bytes()
    for name in ("style.css", "script.js", "icon.svg")
}
"""What is served, by name."""


def _address(name: str) -> str:
    version = hashlib.sha256(FILES[name]).hexdigest()[:12]
    return f"/assets/{name}?{version}"


STYLE, SCRIPT, ICON = map(_address, ("style.css", "script.js", "icon.svg"))
"""Where the style sheet, the script and the icon are."""
