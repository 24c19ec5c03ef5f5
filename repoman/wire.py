"""The words that both ends of the line share: URLs, statuses, JSON.

Pure: values in, values out.  The server encodes with it and the client
decodes with it, so that neither can drift away from the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from attrs import frozen

from repoman import errors
from repoman.audit import Entry
from repoman.model import Group, Identity, Image, ImageFile, Offer, Profile, User
from repoman.transfers import Transfer

PROBLEM_TYPE = "urn:repoman:error:"
"""What the ``type`` of a problem begins with; the class's name follows (RFC 9457)."""

PROBLEM_JSON = "application/problem+json"
"""The media type of refusals in JSON (RFC 9457 section 3)."""

UPLOAD_MEDIA = "application/partial-upload"
"""The media type of a part of a resumable upload."""

KEPT_BY_NOBODY = "no-store"
"""The Cache-Control (RFC 9111 section 5.2.2) of all answers of which nothing else is known: of
refusals, and of what is secret."""

KEPT_BY_CALLER = "private, no-cache"
"""That of what is for the caller alone: their client may keep it, and asks us before each use."""

KEPT_BY_ALL = "no-cache"
"""That of what everybody gets: any cache may keep it, and asks us before each use."""

STORED_SIZE = "Repoman-Stored-Size"
"""The header that says how many bytes an image takes on a disk, where zeros are holes."""

STATUSES: Mapping[type[errors.RepomanError], int] = {
    errors.RepomanError: 500,
    errors.Refused: 403,
    errors.Missing: 404,
    errors.MethodNotAllowed: 405,
    errors.TookTooLong: 408,
    errors.Conflict: 409,
    errors.Expired: 410,
    errors.LengthRequired: 411,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.UnsatisfiableRange: 416,
    errors.TooManyUploads: 429,
    errors.Invalid: 400,
    errors.CredentialRefused: 403,
    errors.Unavailable: 503,
    errors.NoRoom: 507,
}
"""The HTTP status of each kind of error; a class without a row has its parent's."""

REASONS: Mapping[int, str] = {507: "Insufficient Storage", 429: "Too Many Requests"}
"""Reason phrases of statuses that the HTTP library may not know."""


def status_of(error: errors.RepomanError) -> int:
    """The HTTP status that stands for ``error``."""
    return next(STATUSES[c] for c in type(error).__mro__ if c in STATUSES)


def problem(error: errors.RepomanError) -> dict[str, Any]:
    """``error`` as the members of an RFC 9457 problem."""
    body: dict[str, Any] = {
        "type": PROBLEM_TYPE + type(error).__name__,
        "title": error.title,
        "status": status_of(error),
        "detail": error.message,
    }
    for name in ("field", "rule", "offset", "size"):
        if getattr(error, name, None) is not None:
            body[name] = getattr(error, name)
    return body


def error_from_reply(status: int, content_type: str, body: bytes) -> errors.RepomanError:
    """The error that a server's reply stands for.

    A problem names its class; anything else is judged by its status, and its
    first line is the message.
    """
    text = body.decode("utf-8", "replace").strip()
    if content_type.partition(";")[0].strip().lower() == PROBLEM_JSON:
        try:
            return _error_from_problem(json.loads(text), status)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return errors.BadReply(f"The server answered {status} with a broken problem report.")
    kinds = [kind for kind, code in STATUSES.items() if code == status]
    message = text.partition("\n")[0][:500] or f"The server answered {status}."
    return kinds[0](message) if kinds else errors.BadReply(message)


def _error_from_problem(members: Mapping[str, Any], status: int) -> errors.RepomanError:
    kind = getattr(errors, str(members.get("type", "")).removeprefix(PROBLEM_TYPE), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.RepomanError)):
        kind = errors.BadReply
    message = str(members.get("detail") or f"The server answered {status}.")
    if issubclass(kind, errors.Misconfigured):
        return kind([message])
    error = kind(message)
    for name in ("field", "rule", "offset", "size"):
        if name in members:
            setattr(error, name, members[name])
    return error


def ctime(moment: datetime | None) -> str | None:
    """A time in UTC as clients have parsed it since 2011: ``Tue Mar  8 20:44:17 2011``."""
    return None if moment is None else time.asctime(moment.astimezone(timezone.utc).timetuple())


@frozen
class Urls:
    """Absolute URLs of everything.

    :ivar https: how clients reach the TLS endpoint, without a final slash.
    :ivar http: the same for the plain endpoint of public images, or empty.
    """

    https: str
    http: str = ""

    def user(self, name: str) -> str:
        """A user's record."""
        return f"{self.https}/api/users/{quote(name)}"

    def group(self, name: str) -> str:
        """A group's record."""
        return f"{self.https}/api/groups/{quote(name)}"

    def image(self, owner: str, name: str) -> str:
        """An image's record."""
        return f"{self.https}/api/images/{quote(owner)}/{quote(name)}"

    def offer(self, owner: str, name: str) -> str:
        """The offer of an image."""
        return f"{self.https}/api/offers/{quote(owner)}/{quote(name)}"

    def upload(self, upload_id: str) -> str:
        """An unfinished upload."""
        return f"{self.https}/api/uploads/{quote(upload_id)}"

    def image_file(self, image: Image, hypervisor: str) -> str:
        """The bytes of ``image`` for one hypervisor (the form of 2012)."""
        return f"{self.https}/api/images/raw/{image.owner}/{hypervisor}/{image.name}"

    def default_file(self, image: Image) -> str:
        """Where to get and put the image: the form of 2011, or a template for several."""
        return f"{self.https}{self._raw_path(image)}"

    def public_file(self, image: Image) -> str | None:
        """The same on the plain endpoint, if the image is public and there is one."""
        if not (image.unauthenticated_access and self.http):
            return None
        return f"{self.http}{self._raw_path(image)}"

    @staticmethod
    def _raw_path(image: Image) -> str:
        middle = "__hypervisor__/" if len(image.hypervisors) > 1 else ""
        return f"/api/images/raw/{image.owner}/{middle}{image.name}"


def image_json(
    image: Image, urls: Urls, *, full: bool = False, shares: bool = True
) -> dict[str, Any]:
    """The 21 keys of an image; with ``full`` also ``files``, by hypervisor.

    :param shares: say whom it is shared with, which is no business of those who only look at
        what is public.
    """
    stored = image.default_file
    body: dict[str, Any] = {
        "uuid": image.uuid,
        "name": image.name,
        "owner_user_name": image.owner,
        "owner": urls.user(image.owner),
        "uploaded": ctime(image.uploaded),
        "modified": ctime(image.modified),
        "expires": ctime(image.expires),
        "checksum": {
            "type": "sha256" if stored else None,
            "value": stored.digests.sha256 if stored else None,
        },
        "os_variant": image.os_variant,
        "os_type": image.os_type,
        "os_arch": image.os_arch,
        "hypervisor": ",".join(image.hypervisors),
        "description": image.description,
        "read_only": image.read_only,
        "unauthenticated_access": image.unauthenticated_access,
        "http_file_url": urls.public_file(image),
        "raw_file_uploaded": stored is not None,
        "version": image.version,
        "size": stored.size if stored else None,
        "file_url": urls.default_file(image),
        "shared_with": {
            "groups": [urls.group(g) for g in image.shared_groups if shares],
            "users": [urls.user(u) for u in image.shared_users if shares],
        },
    }
    if full:
        body["files"] = {
            name: _file_json(stored_file, urls.image_file(image, name))
            for name, stored_file in image.files.items()
        }
    return body


def _file_json(stored: ImageFile, url: str) -> dict[str, Any]:
    return {
        "size": stored.size,
        "checksum": {"type": "sha256", "value": stored.digests.sha256},
        "uploaded": ctime(stored.uploaded),
        "version": stored.version,
        "url": url,
    }


def offer_json(offer: Offer, urls: Urls) -> dict[str, Any]:
    """An offer, with what somebody must know of the image to accept it: not whom it is shared with.

    ``bytes`` is what all files take, and what would count on the recipient's quota.
    """
    image = offer.image
    return {
        "url": urls.offer(image.owner, image.name),
        "owner_user_name": image.owner,
        "recipient_user_name": offer.recipient,
        "made": ctime(offer.made),
        "ends": ctime(offer.ends),
        "uuid": image.uuid,
        "name": image.name,
        "description": image.description,
        "os_variant": image.os_variant,
        "os_type": image.os_type,
        "os_arch": image.os_arch,
        "hypervisor": ",".join(image.hypervisors),
        "expires": ctime(image.expires),
        "version": image.version,
        "bytes": offer.size,
        "sha256": {name: stored.digests.sha256 for name, stored in image.files.items()},
    }


def credential_json(identity: Identity) -> dict[str, Any]:
    """What the chain proved: in ``whoami?view=full``."""
    return {
        "dn": identity.subject,
        "issuer": identity.issuer,
        "anchor": identity.anchor,
        "proxies": identity.proxies,
        "limited": identity.limited,
        "valid_until": ctime(identity.not_after),
    }


def user_json(profile: Profile, urls: Urls, *, private: bool, full: bool = False) -> dict[str, Any]:
    """The 8 keys of a user; with ``full`` also all DNs with their CAs, and the quota.

    :param private: show what only the user and administrators may see.
    """
    user = profile.user
    body: dict[str, Any] = {
        "user_name": user.user_name,
        "full_name": user.full_name,
        "email": user.email if private else None,
        "client_dn": user.client_dns[0] if private and user.client_dns else None,
        "suspended": user.suspended,
        "permissions": sorted(user.permissions),
        "groups": [urls.group(g) for g in user.groups],
        "images": [urls.image(user.user_name, name) for name in profile.images],
    }
    if full:
        body["client_dns"] = list(user.client_dns) if private else None
        body["bindings"] = _bindings_json(user) if private else None
        body["quota"] = user.quota if private else None
        body["used"] = user.used if private else None
    return body


def _bindings_json(user: User) -> list[dict[str, Any]]:
    return [
        {"dn": dn, "issuer_dn": binding.issuer, "anchor_dn": binding.anchor}
        for dn, binding in zip(user.client_dns, user.bindings, strict=False)
    ]


def group_json(group: Group, urls: Urls) -> dict[str, Any]:
    """The 3 keys of a group."""
    return {
        "name": group.name,
        "permissions": list(group.permissions),
        "users": [urls.user(u) for u in group.users],
    }


def transfer_json(transfer: Transfer) -> dict[str, Any]:
    """Bytes that are on their way; ``rate`` per second, ``remaining`` seconds or null."""
    remaining = transfer.remaining
    return {
        "request_id": transfer.request_id,
        "user": transfer.user,
        "dn": transfer.dn,
        "address": transfer.address,
        "direction": transfer.direction,
        "path": transfer.path,
        "moved": transfer.moved,
        "total": transfer.total,
        "seconds": round(transfer.seconds, 1),
        "rate": round(transfer.rate),
        "remaining": None if remaining is None else round(remaining, 1),
        "daemon": transfer.daemon,
    }


def entry_json(entry: Entry) -> dict[str, Any]:
    """A row of the audit: all that its digest covers, and that."""
    origin, change = entry.origin, entry.change
    return {
        "number": entry.number,
        "time": entry.time.isoformat(timespec="microseconds"),
        "user": origin.user,
        "dn": origin.dn,
        "address": origin.address,
        "request_id": origin.request_id,
        "action": change.action,
        "subject": change.subject,
        "outcome": change.outcome,
        "detail": dict(change.detail),
        "digest": entry.digest,
    }
