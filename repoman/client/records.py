"""Users, groups and images as the JSON objects of the REST interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from repoman.errors import BadReply


class Record(dict[str, Any]):
    """One user, group or image as JSON; what is not there, the server should have sent."""

    def __missing__(self, name: str) -> Any:
        raise BadReply(f"The server's answer has no {name!r}; does it speak Repoman's language?")


Fields = Mapping[str, Any]
"""What to set in a record, by the names of the interface."""

_TEXT = (str,)
_MAYBE_TEXT = (str, type(None))
_MAYBE_NUMBER = (int, type(None))
_NAMES = (list,)

_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "user_name", "owner_user_name", "file_url"), _TEXT),
    "recipient_user_name": _TEXT,
    **dict.fromkeys(("full_name", "email", "client_dn"), _MAYBE_TEXT),
    **dict.fromkeys(("hypervisor", "modified", "description", "value", "ends"), _MAYBE_TEXT),
    **dict.fromkeys(("size", "used", "quota", "bytes"), _MAYBE_NUMBER),
    **dict.fromkeys(("images", "groups", "users", "permissions"), _NAMES),
    **dict.fromkeys(("checksum", "files"), (Record,)),
    "credential": (Record, type(None)),
}
"""What we make something of, and what it must be, wherever it stands."""


def as_record(members: dict[str, Any]) -> Record:
    """A JSON object as a record.

    :raises BadReply: it holds what cannot be.
    """
    for name in _KINDS.keys() & members.keys():
        value = members[name]
        if not isinstance(value, _KINDS[name]) or not _are_texts(value) or _is_huge(value):
            raise BadReply(f"The server's answer has something strange for {name!r}.")
    return Record(members)


def _is_huge(value: object) -> bool:
    """No number of bytes is as large, and none larger can be printed in GiB."""
    return isinstance(value, int) and abs(value) >= 2**63


def _are_texts(value: object) -> bool:
    return not isinstance(value, list) or all(isinstance(one, str) for one in value)


def one(value: object, name: str) -> Record:
    """A single record.

    :param name: what it must have, at least.
    :raises BadReply: it is something else.
    """
    if not isinstance(value, Record):
        raise BadReply("The server's answer is no record; does it speak Repoman's language?")
    value[name]
    return value


def many(value: object, kind: type) -> list[Any]:
    """A listing.

    :param kind: of each row: ``str``, or :class:`Record`.
    :raises BadReply: it is something else.
    """
    if isinstance(value, list) and all(isinstance(row, kind) for row in value):
        return value
    raise BadReply("The server's answer is no listing; does it speak Repoman's language?")


def stored_sha256(image: Record, hypervisor: str | None = None) -> str | None:
    """The SHA-256 (hex) that an image's record (``view="full"``) has for a file."""
    of = image.get("files", Record()).get(hypervisor, image) if hypervisor else image
    return cast("str | None", one(of, "checksum")["checksum"]["value"])


def has_file(image: Record, hypervisor: str | None = None) -> bool:
    """An image (``view="full"``) has a file, for one hypervisor or at all."""
    return hypervisor in image["files"] if hypervisor else bool(image["raw_file_uploaded"])


def hypervisors(image: Record) -> list[str]:
    """The hypervisors that an image is for, in its owner's order."""
    return cast(str, image["hypervisor"] or "").split(",")


def last_name(url: str) -> str:
    """The name at the end of a record's URL."""
    return unquote(_path(url).rsplit("/", 1)[-1])


def owner_and_name(url: str) -> str:
    """``owner/name`` of an image's URL."""
    return unquote("/".join(_path(url).rsplit("/", 2)[-2:]))


def _path(url: str) -> str:
    """The path of a URL.

    :raises BadReply: the server has sent something else.
    """
    try:
        return urlsplit(url).path
    except ValueError:
        raise BadReply("The server's answer has a URL that is none.") from None
