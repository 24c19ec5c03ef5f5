"""The seams to the database: users, groups, and who logs in as whom.

Each method is one transaction, as in :mod:`repoman.records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from attrs import asdict, frozen

from repoman.model import Group, Identity, Profile, User, check_dns
from repoman.texts import check_texts


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

    async def is_registered(self, dn: str) -> bool:
        """Some user has this DN, whichever CA is bound."""

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
