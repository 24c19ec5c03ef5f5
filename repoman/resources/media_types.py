"""What a body says of itself (415): the bytes that are meant, or something wrapped around them.

It counts, for an image is the bytes that came, so an envelope would become the image.  A form's
usual type is no envelope here: curl's ``--data-binary @FILE`` and wget's ``--body-file FILE`` send
the very bytes of the file under it.  Nor is ``application/json``, which HTTPie gives to what it
reads from a pipe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from repoman.errors import Invalid, UnsupportedMedia
from repoman.wire import UPLOAD_MEDIA

ENVELOPES = ("multipart/", "message/", "application/http")
"""What media types begin with that have other content in them (RFC 2046 section 5, RFC 9112)."""

PLAIN: Mapping[str, tuple[str, ...]] = {
    "Content-Encoding": ("identity",),
    "Content-Transfer-Encoding": ("binary", "8bit", "7bit"),
}
"""Fields that name what was done to the bytes, and what means "nothing" (RFC 9110 section 8.4).

The second one is MIME's (RFC 2045 section 6), and no field of HTTP: who sends it has wrapped all
the same.
"""


_QUOTED = re.compile(r'"(?:[^"\\]|\\.?)*"?')
"""A quoted string (RFC 9110 section 5.6.4), or its beginning: so it never has to look again."""


def check_is_file(request: Any, advice: str, *parts: str) -> None:
    """Do nothing, if the body is the bytes of a file, and all of them.

    :param advice: how to send them.
    :param parts: further media types that this is not the place for.
    :raises UnsupportedMedia: it is an envelope, or was encoded.
    :raises Invalid: it is a part of a file.
    """
    for media in _listed(request, "Content-Type"):
        if media.startswith(ENVELOPES) or media in parts:
            raise UnsupportedMedia(
                f"The body is {media}, not the bytes of a file alone; {advice}",
                field="Content-Type",
            )
    check_not_encoded(request, advice)
    if request.getHeader("content-range") is not None:
        raise Invalid(
            "A part of a file cannot be put; use a resumable upload.", field="Content-Range"
        )


def check_not_encoded(request: Any, advice: str) -> None:
    """Do nothing, if nothing was done to the bytes of the body.

    :raises UnsupportedMedia: they were compressed, for example.
    """
    for name, plain in PLAIN.items():
        for coding in _listed(request, name):
            if coding not in plain:
                raise UnsupportedMedia(
                    f"The body is {coding} by its {name}, and nothing is unpacked here; {advice}",
                    field=name,
                )


def check_is_whole_file(request: Any, url: str) -> None:
    """Do nothing, if the body of a PUT or POST is a whole file's bytes, or the first of them.

    :param url: the server, for the line that says how to send them.
    :raises UnsupportedMedia: it is an envelope, or was encoded.
    :raises Invalid: it is a part of a file.
    """
    parts = (UPLOAD_MEDIA,) if request.method == b"PUT" else ()
    check_is_file(request, f"send them as they are: {curl_line(request, url)}", *parts)


def curl_line(request: Any, url: str) -> str:
    """The line that sends a file to where the request went."""
    return f"curl -T FILE {url}{request.path.decode('ascii', 'replace')}"


def _listed(request: Any, name: str) -> Iterable[str]:
    """The values of a field, without parameters, in small letters."""
    # A quoted parameter may have anything in it.
    values = _QUOTED.sub("", request.getHeader(name.lower()) or "").split(",")
    return filter(None, ("".join(value.partition(";")[0].split()).lower() for value in values))
