"""The seams to the database: images, users and groups as records.

Each method is one transaction.  Coroutines are awaited on the reactor; none
may block it.  What is known of bytes is in :mod:`repoman.interfaces`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from attrs import asdict, define, field, frozen

from repoman.audit import AuditQuery, Change, End, Entry
from repoman.model import Image, Offer, User
from repoman.reach import Reach
from repoman.texts import check_texts


@frozen
class NewImage:
    """What an image is created with; names are already checked.

    :ivar keeps_files: its time of expiry ends its service only, and never removes files.
    :raises Invalid: a text is too long.
    """

    owner: str
    name: str
    hypervisors: tuple[str, ...]
    description: str | None = None
    os_variant: str | None = None
    os_type: str | None = None
    os_arch: str | None = None
    expires: datetime | None = None
    read_only: bool = False
    unauthenticated_access: bool = False
    keeps_files: bool = False

    def __attrs_post_init__(self) -> None:
        check_texts(asdict(self, recurse=False))


@define
class ImageLimits:
    """How much one user can add to the records, until somebody sets it anew.

    :ivar images: of one owner.
    :ivar hypervisors: words in the images of one owner that were not known from the start:
        each is a name that no user can have.
    :ivar shares: of one image, with users and with groups.
    """

    images: int
    hypervisors: int
    shares: int


@frozen
class Listing:
    """Which images to list, in which order, how many.

    :ivar viewer: only those that this user may see; ``None`` for all.
    :ivar owner: only this user's.
    :ivar shared_with_user: only those shared with this user, also through a group.
    :ivar shared_with_group: only those shared with this group.
    :ivar shared_out: only those shared with anybody.
    :ivar public: only those that everybody may fetch.
    :ivar fetchable: only those whose time is not over, and that have a file.
    :ivar names: only those with one of these names.
    :ivar text: in the name or the description.
    :ivar exact: field to value: ``os_type``, ``os_arch``, ``os_variant``.
    :ivar hypervisor: only those with this one in their list.
    :ivar sort: ``name``, ``modified`` or ``size``.
    :ivar after: the place after which to go on: of an image that came before.
    :ivar until: the place after which to stop.
    """

    viewer: User | None = None
    owner: str | None = None
    shared_with_user: str | None = None
    shared_with_group: str | None = None
    shared_out: bool = False
    public: bool = False
    fetchable: bool = False
    names: Sequence[str] | None = None
    text: str | None = None
    exact: Mapping[str, str] = field(factory=dict)
    hypervisor: str | None = None
    sort: str = "name"
    descending: bool = False
    limit: int | None = None
    after: tuple[Any, int] | None = None
    until: tuple[Any, int] | None = None


@frozen
class Place:
    """An image in a list, by name only.

    :ivar at: where it stands: by what the list is sorted, and the image's key.
    """

    owner: str
    name: str
    at: tuple[Any, int]


class IImageRecords(Protocol):
    """Images and who they are shared with."""

    async def find(self, owner: str, name: str, within: Reach) -> Image | None:
        """An image by its owner's and its own name, if it lies within somebody's reach.

        One that does not takes as long as none, and so does :meth:`find_either`'s.
        """

    async def find_either(
        self, word: str, own: str | None, name: str, within: Reach
    ) -> Image | None:
        """The image of user ``word``; or that of user ``own``, if ``word`` is a hypervisor."""

    async def create(self, new: NewImage) -> Image:
        """Make an image.

        :raises AlreadyExists: the owner has one of that name.
        :raises Invalid: there is no such owner.
        :raises Conflict: a hypervisor's name is a user's.
        :raises LimitReached: the owner has as many images, or words, as may be.
        """

    async def change(self, image: Image, changes: Mapping[str, Any], quota: int) -> Image:
        """Set fields: those of NewImage, ``owner`` and ``hypervisors`` among them.

        With ``recipient`` the image is offered to this user, as :meth:`IOfferRecords.make` does.
        With another ``owner`` it is shared with nobody any more, and not public.

        :raises Missing: it is gone, or given away, meanwhile.
        :raises LimitReached: the owner has as many images, or words, as may be.
        """

    async def delete(self, image: Image) -> None:
        """Remove an image; its blobs are marked for the sweeper."""

    async def share(self, image: Image, *, user: str = "", group: str = "") -> None:
        """Share with a user or a group.  Harmless twice.

        :raises Invalid: no such user or group.
        :raises LimitReached: the image is shared with as many as may be.
        """

    async def unshare(self, image: Image, *, user: str = "", group: str = "") -> None:
        """End the sharing.  Harmless twice.

        :raises Invalid: no such user or group.
        """

    async def require_group(self, name: str) -> None:
        """Do nothing, if there is such a group.

        :raises Invalid: there is none.
        """

    async def listing(self, wanted: Listing) -> list[Image]:
        """The images wanted, in order; one query."""

    async def places(self, wanted: Listing) -> list[Place]:
        """The same by name only: cheaper."""

    async def publishers(self, after: str, limit: int) -> list[str]:
        """Users who have a public image that can be fetched, in order; those after a name."""

    async def expire_images(self, kept: float) -> int:
        """Let go of the files of images that expired ``kept`` seconds ago; answer how many images.

        Read-only images keep theirs, and so do those that got one since, and those whose
        expiry was set by somebody who may not remove files.
        """


OfferPlace = tuple[datetime, int]
"""Where an offer stands in a list: when it was made, and the image's key."""


class IOfferRecords(Protocol):
    """Images that their owners offer to other users, one user at a time.

    An offer is gone when it has been accepted, withdrawn or declined, when its time is over, and
    with the image, its owner or the recipient; while the owner is suspended there is none.
    """

    async def find(self, viewer: User, owner: str, name: str) -> Offer | None:
        """The offer of an image, for the owner, the recipient and administrators."""

    async def listing(
        self,
        viewer: User,
        limit: int,
        after: OfferPlace | None = None,
        each: int | None = None,
    ) -> list[Offer]:
        """What ``viewer`` offers and is offered, the newest first; so many of them.

        :param after: only those that come after this place.
        :param each: how many of the ones, and of the others, at most.
        """

    async def make(self, image: Image, recipient: str) -> None:
        """Offer an image; one that was offered before is offered to this user now.

        :raises Invalid: there is no such recipient.
        :raises Missing: the image is gone, or given away, meanwhile.
        :raises Conflict: the owner offers as many images as one may.
        """

    async def accept(
        self, offer: Offer, recipient: User, quota: int, name: str, version: int | None
    ) -> Image:
        """Let the image be the recipient's, called ``name``.

        :param quota: of the recipient, in bytes, unless they have one of their own.
        :param version: of the image, as the recipient knows it.
        :raises Missing: the offer does not stand any more.
        :raises Protected: the image has become read-only.
        :raises Conflict: the image has another version.
        :raises AlreadyExists: the recipient has an image of that name.
        :raises QuotaExceeded: the recipient has no room for it.
        """

    async def end(self, offer: Offer, action: str) -> None:
        """Let an offer stand no more.  Harmless twice.

        :param action: how it ended, for the audit.
        """


class IAuditRecords(Protocol):
    """Who changed what.  The rows of a change are written by its own transaction."""

    async def add(self, change: Change) -> None:
        """Note something that no transaction of its own has noted: a refusal."""

    async def listing(self, wanted: AuditQuery) -> list[Entry]:
        """The rows wanted, the newest first."""

    async def numbers(self, wanted: AuditQuery) -> list[int]:
        """The numbers of the rows wanted, the newest first."""

    async def ends(self) -> tuple[End, End]:
        """The last row that was pruned, and the newest one."""

    async def prune(self, kept: float) -> int:
        """Remove rows older than ``kept`` seconds, but the digest of the last; answer how many."""
