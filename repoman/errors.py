"""Every way in which Repoman says no, as one tree.

::

    RepomanError
     +-- Refused                     who asks may not (403)
     |    +-- NotIdentified          nobody: no certificate, unknown DN, suspended
     |    +-- NotPermitted           a known user without the right
     |    +-- Protected              nobody may: read-only image, last admin, ...
     +-- Missing                     no such thing, or none that this caller may see (404)
     |    +-- NoSuchRoute            no such URL
     +-- MethodNotAllowed            the URL exists, the method does not (405)
     +-- Conflict                    the thing is in a state that forbids it (409)
     |    +-- AlreadyExists          the name, DN or address is taken
     |    +-- LimitReached           a user, or an image, has as many as may be
     |    +-- WrongOffset            a resumed upload that starts elsewhere than its end
     +-- Invalid                     the request itself is wrong (400)
     |    +-- DigestMismatch         the bytes are not those that were announced
     |    +-- LengthMismatch         fewer or more bytes than announced
     +-- LengthRequired              a body without a length (411)
     +-- Expired                     the image's time is over (410)
     +-- PreconditionFailed          If-Match or the like (412)
     +-- TooLarge                    over a limit (413)
     |    +-- QuotaExceeded          the owner's quota has no room for it
     +-- TookTooLong                an upload that ran for longer than any may (408)
     +-- UnsupportedMedia            a body of a kind we do not read (415)
     +-- UnsatisfiableRange          a range outside the file (416)
     +-- TooManyUploads              a user's simultaneous uploads (429)
     +-- Unavailable                 try again later (503)
     |    +-- DatabaseUnavailable    no connection to PostgreSQL, or a lost one
     |    |    +-- OutcomeUnknown    the link broke at COMMIT: nobody knows yet
     |    +-- StoreUnavailable       the blob store or its helper process does not answer
     |         +-- StoreAbsent       nobody is there where the object store should be
     +-- NoRoom                      the store is full (507)
     +-- BlobDamaged                 stored bytes are missing or not what was stored (500)
     +-- CredentialRefused           a certificate chain that proves nobody
     +-- TrustUnreadable             CA directory, CRL, host certificate or key unusable
     +-- Misconfigured               mistakes in a configuration, all at once
     +-- ClientGone                  the peer went away in mid-transfer
     +-- ConnectionProblem           the client's side: no server, no TLS, broken line
     +-- CredentialProblem           the client's side: proxy missing, expired, badly protected
     +-- BadReply                    the client's side: the server's answer makes no sense

Messages are for people: what happened, to what or whom, and what to do.  They
hold no secret and no internal detail, because clients see them as they are.
No HTTP in here: :mod:`repoman.wire` has the one table of statuses.
"""

from __future__ import annotations

from collections.abc import Sequence


class RepomanError(Exception):
    """The root of the tree.

    :ivar message: one line for a person.
    :ivar field: the input at fault, by the name the client used; or ``None``.
    :ivar rule: the policy rule that refused, by its name; or ``None``.
    :ivar retry_after: the same may be tried again in so many seconds; ``None``: nobody can say.
    """

    title = "Repoman could not do that"
    retry_after: float | None = None

    def __init__(self, message: str, *, field: str | None = None, rule: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.rule = rule


class Refused(RepomanError):
    """The caller may not do this."""

    title = "Not permitted"


class NotIdentified(Refused):
    """Nobody in particular asks for what only somebody may have."""

    title = "Not identified"


class NotPermitted(Refused):
    """A known user asks for what the policy does not give them."""


class Protected(Refused):
    """The thing itself is protected against everyone."""

    title = "Protected"


class Missing(RepomanError):
    """No such thing, or none that the caller may know of."""

    title = "Not found"


class NoSuchRoute(Missing):
    """No such URL."""


class MethodNotAllowed(RepomanError):
    """The URL has no such method.

    :ivar allowed: the methods that it has.
    """

    title = "Method not allowed"

    def __init__(self, message: str, *, allowed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class Conflict(RepomanError):
    """The state of things forbids it."""

    title = "Conflict"


class AlreadyExists(Conflict):
    """The name, DN or address is taken."""

    title = "Already exists"


class LimitReached(Conflict):
    """There are as many already as one user, or one image, may have."""

    title = "Limit reached"


class WrongOffset(Conflict):
    """A resumed upload begins elsewhere than where the stored bytes end.

    :ivar offset: where they end, in bytes; ``None`` if the reply did not say.
    """

    title = "Wrong offset"

    def __init__(self, message: str, *, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class Invalid(RepomanError):
    """The request is wrong in itself."""

    title = "Bad request"


class DigestMismatch(Invalid):
    """The bytes are not those that were announced."""

    title = "Digest mismatch"


class LengthMismatch(Invalid):
    """Fewer or more bytes than announced."""

    title = "Length mismatch"


class LengthRequired(RepomanError):
    """A body without a length and not chunked."""

    title = "Length required"


class Expired(RepomanError):
    """The image's time is over."""

    title = "Expired"


class PreconditionFailed(RepomanError):
    """A condition that the client set is not met."""

    title = "Precondition failed"


class TooLarge(RepomanError):
    """Over a limit."""

    title = "Too large"


class QuotaExceeded(TooLarge):
    """The owner's quota has no room for the bytes."""

    title = "Quota exceeded"


class TookTooLong(RepomanError):
    """An upload has run for longer than any may."""

    title = "Took too long"


class UnsupportedMedia(RepomanError):
    """A body of a kind that we do not read."""

    title = "Unsupported media type"


class UnsatisfiableRange(RepomanError):
    """A range that has no byte in the file.

    :ivar size: the length of the file in bytes.
    """

    title = "Range not satisfiable"

    def __init__(self, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.size = size


class TooManyUploads(RepomanError):
    """The user already runs as many uploads as allowed."""

    title = "Too many uploads"
    # Uploads take from seconds to hours: whoever waits asks often enough.
    retry_after: float | None = 5.0


class Unavailable(RepomanError):
    """Not now; try again."""

    title = "Unavailable"
    retry_after: float | None = 2.0


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be asked."""


class OutcomeUnknown(DatabaseUnavailable):
    """The connection broke at COMMIT: it may have happened or not."""


class StoreUnavailable(Unavailable):
    """The blob store cannot do its work."""


class StoreAbsent(StoreUnavailable):
    """Nobody answers where the object store should be."""


class NoRoom(RepomanError):
    """The store is full."""

    title = "No room"


class BlobDamaged(RepomanError):
    """Stored bytes are missing, or not what was stored."""

    title = "Damaged"


class CredentialRefused(RepomanError):
    """A certificate chain that does not prove anyone's identity."""

    title = "Credential refused"


class TrustUnreadable(RepomanError):
    """Something that trust is built from cannot be used."""

    title = "Trust is unreadable"


class Misconfigured(RepomanError):
    """Mistakes in a configuration.

    :ivar mistakes: one line each, naming section, key and line.
    """

    title = "Misconfigured"

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class ClientGone(RepomanError):
    """The peer went away before its body or our answer was complete."""

    title = "Client gone"


class ConnectionProblem(RepomanError):
    """No server at the other end, no TLS with it, or a broken line."""

    title = "No connection"


class CredentialProblem(RepomanError):
    """The user's own credential is missing, expired or badly protected."""

    title = "No usable credential"


class BadReply(RepomanError):
    """The server's answer makes no sense."""

    title = "Bad reply"
