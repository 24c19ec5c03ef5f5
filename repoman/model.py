"""What a repository is made of: frozen values that cannot be wrong.

A value that exists is valid: the constructors refuse the rest with
:class:`~repoman.errors.Invalid`, naming the field as clients know it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import Attribute, field, frozen

from repoman.errors import Invalid

NAME_LIMIT = 100
"""The longest name of anything, in characters."""

MOST_DNS = 100
"""How many DNs may log in as one user."""

IMAGE_NAME = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
"""What an image may be called."""

WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
"""What a user, a group or a hypervisor may be called."""

DEFAULT_HYPERVISOR = "xen"
"""The hypervisor of an image whose creator named none."""

DEFAULT_FILE_WORDS = frozenset({"__hypervisor__", "default"})
"""Words that mean "the default file" where a URL names a hypervisor."""

RESERVED_WORDS = frozenset({"raw", "share", "any", "uploads"}) | DEFAULT_FILE_WORDS
"""Words that are neither users nor hypervisors, so that every URL has one reading."""

KNOWN_HYPERVISORS = (
    "xen", "kvm", "qemu", "vmware", "esxi", "hyperv", "virtualbox", "lxc", "openvz", "bare",
)  # fmt: skip
"""The hypervisors that a new repository knows."""

PERMISSIONS = (
    "user_create", "user_modify", "user_delete", "user_modify_self",
    "group_create", "group_modify", "group_delete",
    "group_modify_membership", "group_modify_permissions",
    "image_create", "image_modify", "image_delete",
    "image_modify_group", "image_delete_group",
)  # fmt: skip
"""All that a group can permit its members."""

ADMINS = "admins"
"""The protected group whose members pass every rule."""

USERS = "users"
"""The protected group that every new user joins."""


OFFER_SECONDS = 30 * 86400
"""How long an image stays offered, in seconds: long enough for who is on leave, and then gone."""

MOST_OFFERS = 500
"""How many images one user can have offered at a time."""

MOST_OFFERS_TO_ONE = 100
"""How many of them to one other user: enough for who leaves, and no list is one giver's alone."""


def check_name(kind: str, value: object, *, dots: bool = False, named: str | None = None) -> str:
    """Return ``value`` if it is a name for a ``kind`` of thing.

    :param kind: what is named, for the message: ``image``, ``user``, ...
    :param dots: dots are allowed (images only).
    :param named: the input field, if it is not ``kind`` itself.
    :raises Invalid: with the rule in the message.
    """
    pattern, letters = (IMAGE_NAME, "A-Z a-z 0-9 _ . -") if dots else (WORD, "A-Z a-z 0-9 _ -")
    # "." and ".." pass the pattern but vanish from URLs: strip.
    if (
        isinstance(value, str)
        and len(value) <= NAME_LIMIT
        and value.strip(".")
        and pattern.fullmatch(value)
    ):
        return value
    raise Invalid(
        f"Bad {kind} name: use 1 to {NAME_LIMIT} characters of {letters}"
        + (", not only dots." if dots else "."),
        field=named or kind,
    )


def check_image_name(value: object, named: str = "name") -> str:
    """Return ``value`` if an image may be called so, else raise Invalid."""
    return check_name("image", value, dots=True, named=named)


def check_dns(dns: Sequence[str]) -> None:
    """Do nothing, if so many DNs may log in as one user.

    :raises Invalid: there are more than :data:`MOST_DNS`.
    """
    if len(dns) > MOST_DNS:
        raise Invalid(f"A user has at most {MOST_DNS} DNs, not {len(dns)}.", field="client_dns")


def _named(kind: str, *, dots: bool = False) -> Callable[[Any, Attribute[str], Any], None]:
    def validate(_: Any, attribute: Attribute[str], value: Any) -> None:
        check_name(kind, value, dots=dots, named=attribute.name)

    return validate


@frozen
class Identity:
    """Somebody whose certificate chain was verified; not yet a user.

    :ivar subject: the end entity's DN, in the form of :mod:`repoman.gsi.dn`.
    :ivar issuer: the DN of the CA that issued the end entity.
    :ivar limited: a limited proxy is in the chain.
    :ivar proxies: how many proxies lie above the end entity.
    :ivar not_after: when the chain's first certificate ends (aware, UTC).
    :ivar anchor: the DN of the nearest CA above the issuer, in the verified path, that lies in
        the CA directory; the issuer's own if none does.  ``None`` if nobody has looked there.
    :ivar issuer_is_known: the issuer lies in the CA directory, so its name stands for its key.
    """

    subject: str
    issuer: str
    limited: bool
    proxies: int
    not_after: datetime
    anchor: str | None = None
    issuer_is_known: bool = False


@frozen
class Binding:
    """Whose certificates for a DN log in.

    Two CAs may have one name.  That of a CA in the CA directory stands for one key; any
    other can be given to a sub-CA by everybody who is trusted, so it counts only under the CA
    that it hung from.

    :ivar issuer: the DN of the CA; ``None``: that of the next login.
    :ivar anchor: the DN of the CA above it (see :attr:`Identity.anchor`); ``None``: that of
        the next login.
    """

    issuer: str | None = None
    anchor: str | None = None

    def admits(self, identity: Identity) -> bool:
        """The identity was issued by the CA that is bound, as far as one is."""
        if self.issuer is not None and identity.issuer != self.issuer:
            return False
        known = self.issuer is not None and identity.issuer_is_known
        return known or self.anchor in (None, identity.anchor)

    def completed(self, identity: Identity) -> Binding:
        """The binding after a login of an identity that it admits."""
        return Binding(self.issuer or identity.issuer, self.anchor or identity.anchor)


@frozen
class Membership:
    """A user's place in a group, with what the group permits.

    :ivar group_id: the group's key.
    """

    group: str
    permissions: frozenset[str]
    group_id: int = 0


@frozen
class User:
    """A registered account.

    :ivar id: the record's key.
    :ivar client_dns: the DNs that log in as this user, the first one first.
    :ivar bindings: to which CA each of them is bound.
    :ivar quota: the most that the user's files may take, in bytes; ``None``
        means the configured quota.
    :ivar used: what they take, in bytes.
    """

    id: int
    user_name: str = field(validator=_named("user"))
    full_name: str | None = None
    email: str | None = None
    client_dns: tuple[str, ...] = ()
    bindings: tuple[Binding, ...] = ()
    suspended: bool = False
    memberships: tuple[Membership, ...] = ()
    quota: int | None = None
    used: int = 0

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the user's groups."""
        return tuple(m.group for m in self.memberships)

    @property
    def permissions(self) -> frozenset[str]:
        """All that any of the user's groups permits."""
        return frozenset().union(*(m.permissions for m in self.memberships))

    @property
    def is_admin(self) -> bool:
        """The user is in ``admins``."""
        return ADMINS in self.groups


@frozen
class Profile:
    """A user, as somebody sees them.

    :ivar images: the names of those of the user's images that may be seen.
    """

    user: User
    images: tuple[str, ...] = ()


@frozen
class Caller:
    """Who asks now: a user, or nobody in particular.

    :ivar user: ``None`` for nobody.
    :ivar identity: the verified identity, also when no user has it.
    :ivar reason: why this is nobody, in words for a person; empty for a user.
    :ivar reads_only: the credential may not change anything (a limited proxy).
    """

    user: User | None
    identity: Identity | None = None
    reason: str = ""
    reads_only: bool = False


@frozen
class Group:
    """A set of users with permissions.

    :ivar protected: one of the two groups that cannot be renamed or removed.
    """

    id: int
    name: str = field(validator=_named("group"))
    protected: bool = False
    permissions: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


@frozen
class Digests:
    """What a file's bytes hash to, as lower-case hex; ``None`` if not computed (yet)."""

    sha256: str
    sha512: str | None = None
    md5: str | None = None
    adler32: str | None = None


@frozen
class ImageFile:
    """The bytes of an image for one hypervisor.

    :ivar blob: the key of the bytes in the store.
    :ivar size: in bytes.
    :ivar version: counts the uploads of this file, from 1.
    :ivar bound: since when its addresses have these bytes, to the second: two files of one address
        never have the same, whatever gave it to the second one.
    :ivar damaged: the bytes are lost, or not what was stored.
    """

    hypervisor: str
    blob: str
    size: int
    digests: Digests
    uploaded: datetime
    version: int
    bound: datetime = field(eq=False)  # where it is, not what it is
    damaged: bool = False


@frozen
class Upload:
    """A resumable upload that is not complete yet.

    :ivar id: names it; also the key of its blob.
    :ivar owner: the image's, by name.
    :ivar length: of the whole, in bytes; ``None`` if the client has not said.
    :ivar offset: how many bytes are durable.
    :ivar keep_until: when it is given up, unless it goes on.
    """

    id: str
    owner: str
    image: str
    hypervisor: str
    length: int | None
    offset: int
    keep_until: datetime


@frozen
class ImageRef:
    """How a client names an image: ``owner`` is ``None`` for "my own"."""

    owner: str | None
    name: str


@frozen
class Image:
    """The record of an image.

    :ivar uuid: 32 hex digits.
    :ivar hypervisors: in the order in which the owner listed them, never empty.
    :ivar files: by hypervisor; those that have bytes.
    :ivar version: counts the uploads of all files.
    :ivar owner_groups: the groups that the owner is in (for the policy).
    """

    id: int
    uuid: str
    name: str = field(validator=_named("image", dots=True))
    owner_id: int
    owner: str
    modified: datetime
    uploaded: datetime | None = None
    expires: datetime | None = None
    description: str | None = None
    os_variant: str | None = None
    os_type: str | None = None
    os_arch: str | None = None
    hypervisors: tuple[str, ...] = (DEFAULT_HYPERVISOR,)
    read_only: bool = False
    unauthenticated_access: bool = False
    version: int = 0
    files: Mapping[str, ImageFile] = field(factory=dict)
    shared_users: tuple[str, ...] = ()
    shared_groups: tuple[str, ...] = ()
    owner_groups: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """How people name it: ``owner/name``."""
        return f"{self.owner}/{self.name}"

    @property
    def default_file(self) -> ImageFile | None:
        """The file of the first listed hypervisor that has one."""
        return next((self.files[h] for h in self.hypervisors if h in self.files), None)

    def has_expired(self, now: datetime) -> bool:
        """The image's time is over at ``now``."""
        return self.expires is not None and self.expires <= now


@frozen
class Offer:
    """An image that its owner offers to another user, who may accept it.

    :ivar image: as it is now.
    :ivar recipient: to whom, by name.
    :ivar made: when.
    :ivar ends: when it is gone by itself.
    """

    image: Image
    recipient: str
    made: datetime
    ends: datetime

    @property
    def size(self) -> int:
        """What all the image's files take, and what would count on the recipient, in bytes."""
        return sum(stored.size for stored in self.image.files.values())
