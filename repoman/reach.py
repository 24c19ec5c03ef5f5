"""Which images are somebody's business at all."""

from __future__ import annotations

from attrs import frozen

from repoman.model import User

OF_ANY_IMAGE = frozenset({"image_modify", "image_delete"})
"""Permissions that reach every image."""

OF_A_GROUPS = frozenset({"image_modify_group", "image_delete_group"})
"""Permissions that reach the images of the members of the group that permits it."""


@frozen
class Reach:
    """Which images are somebody's business at all: they may see them, or do something to them.

    Others are to them as if they were not there, so that not even the time that an answer takes
    tells them apart.  The rules of :mod:`repoman.policy` say what of these they may do.

    :ivar everything: all images.
    :ivar user_id: whose own ones, and those shared with them; ``None``: public ones only.
    :ivar groups: keys of groups with which they may be shared.
    :ivar acting: keys of groups whose members' images they may change or delete.
    """

    everything: bool = False
    user_id: int | None = None
    groups: tuple[int, ...] = ()
    acting: tuple[int, ...] = ()


def reach(user: User | None) -> Reach:
    """The images that are the business of a user, or of nobody in particular."""
    if user is None:
        return Reach()
    everything = user.is_admin or not user.permissions.isdisjoint(OF_ANY_IMAGE)
    acting = (m.group_id for m in user.memberships if not m.permissions.isdisjoint(OF_A_GROUPS))
    groups = tuple(m.group_id for m in user.memberships)
    return Reach(everything, user.id, groups, tuple(acting))
