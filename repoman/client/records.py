"""Users, groups and images as the JSON objects of the REST interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

Record = dict[str, Any]
"""One user, group or image as JSON."""

Fields = Mapping[str, Any]
"""What to set in a record, by the names of the interface."""


def stored_sha256(image: Record, hypervisor: str | None = None) -> str | None:
    """The SHA-256 (hex) that an image's record (``view="full"``) has for a file."""
    of = image.get("files", {}).get(hypervisor, image) if hypervisor else image
    return cast("str | None", of["checksum"]["value"])


def has_file(image: Record, hypervisor: str | None = None) -> bool:
    """An image (``view="full"``) has a file, for one hypervisor or at all."""
    return hypervisor in image["files"] if hypervisor else bool(image["raw_file_uploaded"])


def hypervisors(image: Record) -> list[str]:
    """The hypervisors that an image is for, in its owner's order."""
    return cast(str, image["hypervisor"] or "").split(",")


def last_name(url: str) -> str:
    """The name at the end of a record's URL."""
    return unquote(urlsplit(url).path.rsplit("/", 1)[-1])


def owner_and_name(url: str) -> str:
    """``owner/name`` of an image's URL."""
    return unquote("/".join(urlsplit(url).path.rsplit("/", 2)[-2:]))
