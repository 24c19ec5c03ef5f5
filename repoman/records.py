"""The seams to the database: images, users and groups as records.

Each method is one transaction.  Coroutines are awaited on the reactor; none
may block it.  What is known of bytes is in :mod:`repoman.interfaces`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from attrs import field, frozen

from repoman.audit import AuditQuery, Change, End, Entry
from repoman.model import Group, Identity, Image, Profile, User
from repoman.reach import Reach


@frozen
class NewImage:
    """What an image is created with; names are already checked.

    :ivar keeps_files: its time of expiry ends its service only, and never removes files.
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
    :ivar after: the place after which to go on, from an earlier page.
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
    after: tuple[str | float | None, int] | None = None


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
        """

    async def change(self, image: Image, changes: Mapping[str, Any], quota: int) -> Image:
        """Set fields: those of NewImage, ``owner`` and ``hypervisors`` among them.

        :raises Missing: it is gone meanwhile.
        """

    async def delete(self, image: Image) -> None:
        """Remove an image; its blobs are marked for the sweeper."""

    async def share(self, image: Image, *, user: str = "", group: str = "") -> None:
        """Share with a user or a group.  Harmless twice.

        :raises Invalid: no such user or group.
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

    def batches(self, wanted: Listing, size: int) -> AsyncGenerator[list[Image]]:
        """The same, so many at a time; also one query.  To be closed."""

    async def names(self, wanted: Listing) -> list[tuple[str, str]]:
        """Their ``(owner, name)`` pairs only."""

    async def expire_images(self, kept: float) -> int:
        """Let go of the files of images that expired ``kept`` seconds ago; answer how many images.

        Read-only images keep theirs, and so do those that got one since, and those whose
        expiry was set by somebody who may not remove files.
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
        """The user with this DN from this issuer; binds the issuer at the first login."""

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
    :ivar groups: beside ``users``.
    :ivar quota: in bytes; ``None`` means the configured one.
    """

    user_name: str
    client_dns: tuple[str, ...]
    issuer_dn: str | None = None
    full_name: str | None = None
    email: str | None = None
    groups: tuple[str, ...] = ()
    suspended: bool = False
    quota: int | None = None


class IUserRecords(Protocol):
    """Users as records.

    Whatever would leave the repository without an administrator who can log
    in raises :class:`~repoman.errors.Protected`, also when several such
    requests come at once.
    """

    async def find(self, user_name: str) -> User | None:
        """A user by name."""

    async def names(self) -> list[str]:
        """All users' names, in order."""

    async def known(self, limit: int) -> tuple[list[str], list[str]]:
        """The names of users and of groups, in order, up to ``limit`` of each; one query."""

    async def accounts(self, text: str, after: str, limit: int | None) -> list[User]:
        """Users by name that have ``text`` in a name; one query."""

    async def largest(self, limit: int) -> list[tuple[str, int]]:
        """Those whose files take most, with how many bytes; one query."""

    async def profiles(
        self, viewer: User, *, user_name: str | None = None, group: str | None = None
    ) -> list[Profile]:
        """Users with those of their images that ``viewer`` may see; one query.

        :param user_name: only this one.
        :param group: only members of this group.
        """

    async def create(self, new: NewUser) -> None:
        """Make a user.

        :raises AlreadyExists: the name, a DN or the e-mail address is taken.
        :raises Invalid: there is no such group.
        """

    async def change(self, user: User, changes: Mapping[str, Any]) -> None:
        """Set fields: those of NewUser but for ``groups``.

        ``issuer_dn`` is that of the first DN; the others keep what they were bound to.
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

    async def listing(self) -> list[Group]:
        """All groups by name; one query."""

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

    async def ends(self) -> tuple[End, End]:
        """The last row that was pruned, and the newest one."""

    async def prune(self, kept: float) -> int:
        """Remove rows older than ``kept`` seconds, but the digest of the last; answer how many."""
