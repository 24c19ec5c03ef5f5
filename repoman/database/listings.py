"""From a wish for a list of images to the tail of one query."""

from __future__ import annotations

from typing import Any

from repoman.model import User
from repoman.records import Listing

NAMES = "SELECT o.user_name, i.name FROM image i JOIN account o ON o.account_id = i.owner_id "
"""The cheap head of a listing; the other one is ``images.SELECT``."""

_SIZE = """coalesce((SELECT b.size FROM image_file f JOIN blob b USING (blob)
    JOIN image_hypervisor h ON h.image_id = f.image_id AND h.hypervisor = f.hypervisor
    WHERE f.image_id = i.image_id ORDER BY h.position LIMIT 1), -1)"""

SORTS = {"name": "i.name", "modified": "i.modified", "size": _SIZE}
"""What a listing can be sorted by."""

_VISIBLE = """(i.owner_id = %(viewer)s
    OR i.image_id IN (SELECT image_id FROM image_shared_with_user WHERE account_id = %(viewer)s)
    OR i.image_id IN (SELECT s.image_id FROM image_shared_with_group s
                        JOIN membership m USING (group_id) WHERE m.account_id = %(viewer)s))"""

_SHARED_WITH_USER = """(
    i.image_id IN (SELECT image_id FROM image_shared_with_user s JOIN account USING (account_id)
                    WHERE user_name = %(shared_with_user)s)
    OR i.image_id IN (SELECT s.image_id FROM image_shared_with_group s
                        JOIN membership m USING (group_id) JOIN account USING (account_id)
                       WHERE user_name = %(shared_with_user)s))"""

_SHARED_WITH_GROUP = """i.image_id IN (
    SELECT image_id FROM image_shared_with_group JOIN user_group USING (group_id)
     WHERE name = %(shared_with_group)s)"""

_SHARED_OUT = """(EXISTS (SELECT FROM image_shared_with_user s WHERE s.image_id = i.image_id)
    OR EXISTS (SELECT FROM image_shared_with_group s WHERE s.image_id = i.image_id))"""


def sees_everything(user: User) -> bool:
    """The listing of this user needs no condition (as the policy's ``image.see`` has it)."""
    return user.is_admin or "image_modify" in user.permissions


def visible_to(viewer: User, *, private: bool = False) -> tuple[str, dict[str, Any]]:
    """A condition on ``image i``, and its parameters: ``viewer`` may see it.

    :param private: they may see others' private data, the list of all images included.
    """
    if private or sees_everything(viewer):
        return "true", {}
    return _VISIBLE, {"viewer": viewer.id}


def image_query(wanted: Listing) -> tuple[str, dict[str, Any]]:
    """WHERE, ORDER BY and LIMIT of a listing, and their parameters."""
    conditions: list[str] = []
    params: dict[str, Any] = {}

    def where(condition: str, **values: Any) -> None:
        conditions.append(condition)
        params.update(values)

    if wanted.viewer is not None:
        condition, values = visible_to(wanted.viewer)
        where(condition, **values)
    if wanted.owner is not None:
        where("o.user_name = %(owner)s", owner=wanted.owner)
    if wanted.shared_with_user is not None:
        where(_SHARED_WITH_USER, shared_with_user=wanted.shared_with_user)
    if wanted.shared_with_group is not None:
        where(_SHARED_WITH_GROUP, shared_with_group=wanted.shared_with_group)
    if wanted.shared_out:
        where(_SHARED_OUT)
    if wanted.text is not None:
        where(
            "(strpos(lower(i.name), lower(%(text)s)) > 0"
            " OR strpos(lower(i.description), lower(%(text)s)) > 0)",
            text=wanted.text,
        )
    if wanted.hypervisor is not None:
        where(
            "EXISTS (SELECT FROM image_hypervisor h WHERE h.image_id = i.image_id"
            " AND h.hypervisor = %(hypervisor)s)",
            hypervisor=wanted.hypervisor,
        )
    for name in ("os_type", "os_arch", "os_variant"):
        if name in wanted.exact:
            where(f"i.{name} = %({name})s", **{name: wanted.exact[name]})
    column = SORTS[wanted.sort]
    direction, beyond = ("DESC", "<") if wanted.descending else ("ASC", ">")
    if wanted.after is not None:
        where(
            f"({column}, i.image_id) {beyond} (%(after)s, %(after_id)s)",
            after=wanted.after[0],
            after_id=wanted.after[1],
        )
    tail = " WHERE " + " AND ".join(conditions) if conditions else ""
    tail += f" ORDER BY {column} {direction}, i.image_id {direction}"
    if wanted.limit is not None:
        tail += " LIMIT %(limit)s"
        params["limit"] = wanted.limit
    return tail, params
