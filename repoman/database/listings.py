"""From a wish for a list of images to the tail of one query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from repoman.model import User
from repoman.reach import Reach
from repoman.records import Listing

PLACES = """
SELECT o.user_name, i.name, {column}, i.image_id
  FROM image i JOIN account o ON o.account_id = i.owner_id
"""
"""The cheap head of a listing; the other one is ``images.SELECT``."""

SORTS = {"name": "i.name", "modified": "i.modified", "size": "i.default_size"}
"""What a listing can be sorted by; there is an index for each, with ``image_id``."""

_SHARED = """EXISTS (SELECT FROM image_shared_with_user s
    WHERE s.image_id = i.image_id AND s.account_id = {account})"""
_SHARED_BY_GROUP = """EXISTS (SELECT FROM image_shared_with_group s
    WHERE s.image_id = i.image_id AND s.group_id = ANY({groups}))"""

_WAYS = (
    "i.owner_id = %(viewer)s",
    _SHARED.format(account="%(viewer)s"),
    _SHARED_BY_GROUP.format(groups="%(viewers_groups)s::bigint[]"),
)
"""The ways in which a user may see ``image i``."""

_REACHED = f"""
 WHERE i.image_id = (
    WITH whose AS MATERIALIZED (
        SELECT max(account_id) AS account_id FROM account WHERE user_name = {{owner}}),
    named AS MATERIALIZED (
        SELECT coalesce(i.image_id, 0) AS image_id, coalesce(i.owner_id, 0) AS owner_id,
               coalesce(i.unauthenticated_access, false) AS is_public
          FROM whose LEFT JOIN image i ON i.owner_id = whose.account_id AND i.name = %(name)s)
    SELECT image_id FROM named i
     WHERE %(everything)s::boolean OR i.is_public OR {" OR ".join(_WAYS)}
        OR EXISTS (SELECT FROM membership m
            WHERE m.account_id = i.owner_id AND m.group_id = ANY(%(acting)s::bigint[])))
"""  # noqa: S608 constants

BY_NAME = _REACHED.format(owner="%(owner)s")
"""A condition: ``image i`` has an owner and a name, and lies within a reach.

What is not there goes the same way as what is out of reach, under the number 0, which no row has:
all the same indexes are looked into before either of them is no row.
"""

EITHER = _REACHED.format(
    owner="""(
        SELECT CASE kind WHEN 'user' THEN word WHEN 'hypervisor' THEN %(own)s END
          FROM word WHERE word = %(word)s)"""
)
"""The same of an image of user ``word``; or of user ``own``, if ``word`` is a hypervisor."""

_OTHER = "(SELECT account_id FROM account WHERE user_name = %(shared_with_user)s)"
_OTHERS_GROUPS = f"ARRAY(SELECT group_id FROM membership WHERE account_id = {_OTHER})"  # noqa: S608

_CONDITIONS = {
    "owner": "i.owner_id = (SELECT account_id FROM account WHERE user_name = %(owner)s)",
    "shared_with_user": f"({_SHARED} OR {_SHARED_BY_GROUP})".format(
        account=_OTHER, groups=_OTHERS_GROUPS
    ),
    "shared_with_group": """EXISTS (SELECT FROM image_shared_with_group s
        WHERE s.image_id = i.image_id AND s.group_id = (
            SELECT group_id FROM user_group WHERE name = %(shared_with_group)s))""",
    "shared_out": """(EXISTS (SELECT FROM image_shared_with_user s WHERE s.image_id = i.image_id)
        OR EXISTS (SELECT FROM image_shared_with_group s WHERE s.image_id = i.image_id))""",
    "public": "i.unauthenticated_access",
    "fetchable": "(i.expires IS NULL OR i.expires > now()) AND i.default_size >= 0",
    "names": "i.name = ANY(%(names)s::text[])",
    "text": """(strpos(lower(i.name), lower(%(text)s)) > 0
        OR strpos(lower(i.description), lower(%(text)s)) > 0)""",
    "hypervisor": """EXISTS (SELECT FROM image_hypervisor h
        WHERE h.image_id = i.image_id AND h.hypervisor = %(hypervisor)s)""",
    "os_type": "i.os_type = %(os_type)s",
    "os_arch": "i.os_arch = %(os_arch)s",
    "os_variant": "i.os_variant = %(os_variant)s",
}
"""What each part of a Listing means for ``image i``."""


PUBLISHERS = f"""
SELECT user_name FROM account
 WHERE user_name > %(after)s AND EXISTS (
    SELECT FROM image i WHERE i.owner_id = account_id
       AND {_CONDITIONS["public"]} AND {_CONDITIONS["fetchable"]})
 ORDER BY user_name LIMIT %(limit)s
"""  # noqa: S608 constants
"""Users who have something that everybody can fetch now, after a name."""


def sees_everything(user: User) -> bool:
    """The listing of this user needs no condition (as the policy's ``image.see`` has it)."""
    return user.is_admin or "image_modify" in user.permissions


def visible_to(viewer: User, *, private: bool = False) -> tuple[str, dict[str, Any]]:
    """A condition on ``image i``, and its parameters: ``viewer`` may see it.

    :param private: they may see others' private data, the list of all images included.
    """
    if private or sees_everything(viewer):
        return "true", {}
    return f"({' OR '.join(_WAYS)})", _viewer(viewer)


def _viewer(user: User) -> dict[str, Any]:
    # Keys, not names: the planner then knows how much is shared with these very groups.
    return {"viewer": user.id, "viewers_groups": [m.group_id for m in user.memberships]}


def reached(within: Reach) -> dict[str, Any]:
    """The parameters of a reach; arrays as text, so that they can be keys of what is remembered."""
    return {
        "everything": within.everything,
        "viewer": within.user_id,
        "viewers_groups": _array(within.groups),
        "acting": _array(within.acting),
    }


def _array(keys: Iterable[int]) -> str:
    return "{" + ",".join(map(str, keys)) + "}"


def image_query(wanted: Listing) -> tuple[str, dict[str, Any]]:
    """WHERE, ORDER BY and LIMIT of a listing, and their parameters."""
    params = _given(wanted)
    conditions = [_CONDITIONS[name] for name in params]
    column = SORTS[wanted.sort]
    direction, beyond = ("DESC", "<") if wanted.descending else ("ASC", ">")
    if wanted.after is not None:
        conditions.append(f"({column}, i.image_id) {beyond} (%(after)s, %(after_id)s)")
        params["after"], params["after_id"] = wanted.after
    if wanted.until is not None:
        conditions.append(f"NOT ({column}, i.image_id) {beyond} (%(until)s, %(until_id)s)")
        params["until"], params["until_id"] = wanted.until
    tail = f" ORDER BY {column} {direction}, i.image_id {direction}"
    if wanted.limit is not None:
        tail += " LIMIT %(limit)s"
        params["limit"] = wanted.limit
    if wanted.viewer is not None and not sees_everything(wanted.viewer):
        params |= _viewer(wanted.viewer)
        conditions = [_first_visible(conditions, tail)]
    return (" WHERE " + " AND ".join(conditions) if conditions else "") + tail, params


def _given(wanted: Listing) -> dict[str, Any]:
    values = {
        "owner": wanted.owner, "shared_with_user": wanted.shared_with_user,
        "shared_with_group": wanted.shared_with_group, "shared_out": wanted.shared_out or None,
        "public": wanted.public or None, "fetchable": wanted.fetchable or None,
        "names": None if wanted.names is None else list(wanted.names),
        "text": wanted.text, "hypervisor": wanted.hypervisor, **wanted.exact,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value is not None}


def _first_visible(conditions: list[str], tail: str) -> str:
    """A condition: among the first of each of the three ways in which one may see an image.

    One OR of the three would be asked of every image in the order of the list
    until the page is full, which takes long for who sees few; each way by
    itself the planner can follow from the shorter end.
    """
    found = []
    for way in _WAYS:
        where = " AND ".join([way, *conditions])
        found.append(f"(SELECT i.image_id FROM image i WHERE {where}{tail})")  # noqa: S608 constants
    return f"i.image_id IN ({' UNION '.join(found)})"
