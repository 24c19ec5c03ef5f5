"""The seams to the database: images, users and groups as records.

Each method is one transaction.  Coroutines are awaited on the reactor; none
may block it.  What is known of bytes is in :mod:`repoman.interfaces`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from attrs import asdict, define, field, frozen

from repoman.audit import AuditQuery, Change, End, Entry
from repoman.model import Group, Identity, Image, Offer, Profile, User, check_dns, check_texts
from repoman.reach import Reach


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

    async def expire_images(self, kept: float) -> int:
        """Let go of the files of images that expired ``kept`` seconds ago; answer how many images.

        Read-only images keep theirs, and so do those that got one since, and those whose
        expiry was set by somebody who may not remove files.
        """


class IOfferRecords(Protocol):
    """Images that their owners offer to other users, one user at a time.

    An offer is gone when it has been accepted, withdrawn or declined, when its time is over, and
    with the image, its owner or the recipient; while the owner is suspended there is none.
    """

    async def find(self, viewer: User, owner: str, name: str) -> Offer | None:
        """The offer of an image, for the owner, the recipient and administrators."""

    async def listing(self, viewer: User) -> list[Offer]:
        """What ``viewer`` offers and is offered, the newest first."""

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


@frozen
class Login:
    """A DN, in canonical form, that logs in as a user."""

    user_name: str
    dn: str


AdminFate = Literal["created", "known before", "left alone"]
"""What becomes of a line of the administrators' file: one is made; the DN was looked at before, or
is an administrator's; the DN, or an administrator's name, is another user's, who stays as they are.
"""


class IAccountRecords(Protocol):
    """Who logs in as whom."""

    async def by_identity(self, identity: Identity) -> User | None:
        """The user whose DN this is, if its CA is the one that is bound (see Binding).

        What is not bound yet is bound by this login.
        """

    async def ensure_admin(self, user_name: str, email: str | None, dn: str) -> AdminFate:
        """Create an administrator, once for each DN and for ever.

        :raises AlreadyExists: the name or the address is another's; asked again, it is tried again.
        """

    async def admit(self, login: Login) -> bool:
        """Let a DN log in as a user, who is made if need be; answer whether it is news.

        :raises AlreadyExists: the DN is another user's, or the name is not free.
        """


@frozen
class NewUser:
    """What a user is created with; names and DNs are already checked.

    :ivar client_dns: those that log in as this user, the first one first.
    :ivar issuer_dn: of the CA of the first one; ``None``: that of the first login.
    :ivar anchor_dn: of the CA above that, which lies in the CA directory; ``None`` likewise.
    :ivar groups: beside ``users``.
    :ivar quota: in bytes; ``None`` means the configured one.
    :raises Invalid: a text is too long, or there are too many DNs.
    """

    user_name: str
    client_dns: tuple[str, ...]
    issuer_dn: str | None = None
    anchor_dn: str | None = None
    full_name: str | None = None
    email: str | None = None
    groups: tuple[str, ...] = ()
    suspended: bool = False
    quota: int | None = None

    def __attrs_post_init__(self) -> None:
        check_texts(asdict(self, recurse=False))
        check_dns(self.client_dns)


class IUserRecords(Protocol):
    """Users as records.

    Whatever would leave the repository without an administrator who can log
    in raises :class:`~repoman.errors.Protected`, also when several such
    requests come at once.
    """

    async def find(self, user_name: str) -> User | None:
        """A user by name."""

    async def names(self, after: str, limit: int, *, group: str | None = None) -> list[str]:
        """Users' names in order, so many of those that come after one.

        :param group: only members of this group.
        """

    async def known(self, limit: int) -> tuple[list[str], list[str]]:
        """The names of users and of groups, in order, up to ``limit`` of each; one query."""

    async def accounts(self, text: str, after: str, limit: int | None) -> list[User]:
        """Users by name that have ``text`` in a name; one query."""

    async def largest(self, limit: int) -> list[tuple[str, int]]:
        """Those whose files take most, with how many bytes; one query."""

    async def profiles(
        self,
        viewer: User,
        *,
        user_name: str | None = None,
        group: str | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[Profile]:
        """Users by name, with those of their images that ``viewer`` may see; one query.

        :param user_name: only this one.
        :param group: only members of this group.
        :param after: only those whose names come after this one.
        """

    async def create(self, new: NewUser) -> None:
        """Make a user.

        :raises AlreadyExists: the name, a DN or the e-mail address is taken.
        :raises Invalid: there is no such group.
        """

    async def change(self, user: User, changes: Mapping[str, Any]) -> None:
        """Set fields: those of NewUser but for ``groups``.

        ``issuer_dn`` and ``anchor_dn`` are those of the first DN, and a new issuer forgets the
        anchor; the others keep what they were bound to.
        ``own_email`` says that the user set the address, which others may have as well.

        :raises AlreadyExists: the name, a DN or the e-mail address is taken.
        :raises Missing: the user is gone meanwhile.
        """

    async def delete(self, user: User) -> None:
        """Remove a user with all images; their blobs are marked for the sweeper."""


@frozen
class NewGroup:
    """What a group is created with; names and permissions are already checked."""

    name: str
    users: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


class IGroupRecords(Protocol):
    """Groups, their members and what they permit."""

    async def find(self, name: str) -> Group | None:
        """A group by name."""

    async def listing(self, after: str = "", limit: int | None = None) -> list[Group]:
        """Groups by name, so many of those that come after one; one query."""

    async def names(self, after: str, limit: int) -> list[str]:
        """The same by name only: cheaper."""

    async def create(self, new: NewGroup) -> Group:
        """Make a group.

        :raises AlreadyExists: the name is taken.
        :raises Invalid: there is no such user.
        """

    async def rename(self, group: Group, name: str) -> Group:
        """Give a group another name.

        :raises AlreadyExists: it is taken.
        :raises Missing: the group is gone meanwhile.
        """

    async def delete(self, group: Group) -> None:
        """Remove a group; what was shared with it no longer is."""

    async def add_member(self, group: Group, user: User) -> None:
        """Let a user be a member.  Harmless twice."""

    async def remove_member(self, group: Group, user: User) -> None:
        """End a membership.  Harmless twice.

        :raises Protected: nobody would be left to administrate.
        """

    async def permit(self, group: Group, permission: str) -> None:
        """Let a group permit something.  Harmless twice."""

    async def forbid(self, group: Group, permission: str) -> None:
        """Take a permission from a group.  Harmless twice."""


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
