"""Who may do what: the laws that hold for every rule, and the table that people read."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from repoman.errors import Missing, NotIdentified, NotPermitted, Protected
from repoman.model import ADMINS, PERMISSIONS, Caller, Group, Image, Membership, User
from repoman.policy import (
    PROTECTIONS,
    RULES,
    authorize,
    authorize_image,
    forbid_changes_to_read_only,
    identified,
    may,
)
from repoman.reach import reach

SECURITY = Path(__file__).parents[1] / "docs" / "security.md"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)

NOT_OF_AN_IMAGE = ("image.create", "image.create_for_another", "image.share_with_group")
"""Actions whose thing is no image that is there."""

names = st.sampled_from(["a", "b", "c"])
memberships = st.lists(
    st.builds(Membership, names, st.frozensets(st.sampled_from(PERMISSIONS), max_size=3)),
    max_size=2,
    unique_by=lambda m: m.group,
)
admins = Membership(ADMINS, frozenset(PERMISSIONS))
users = st.builds(
    lambda number, groups: User(number, f"user{number}", memberships=tuple(groups)),
    st.integers(1, 3),
    memberships,
)
images = st.builds(
    lambda owner, users, groups, owner_groups, public: Image(
        id=1, uuid="0" * 32, name="one", owner_id=owner, owner=f"user{owner}", modified=NOW,
        shared_users=tuple(f"user{n}" for n in users), shared_groups=tuple(groups),
        owner_groups=tuple(owner_groups), unauthenticated_access=public,
    ),
    st.integers(1, 3), st.sets(st.integers(1, 3)), st.sets(names), st.sets(names), st.booleans(),
)  # fmt: skip
groups = st.builds(Group, st.just(1), names)
actions = st.sampled_from(sorted(RULES))


def thing_for(action: str) -> st.SearchStrategy[Any]:
    if action == "image.share_with_group":
        return groups
    if action.startswith("image."):
        return images
    return users if action.startswith("user.") else groups


things = actions.flatmap(lambda action: st.tuples(st.just(action), thing_for(action)))


@given(things, users)
def test_nobody_may_do_what_some_user_may_not(asked: tuple[str, Any], user: User) -> None:
    action, thing = asked
    assert may(action, Caller(user), thing) or not may(action, Caller(None), thing)


@given(things)
def test_nobody_may_only_fetch_public_images(asked: tuple[str, Any]) -> None:
    action, thing = asked
    open_if_public = {"image.read_bytes", "image.look"}
    is_public = action in open_if_public and thing.unauthenticated_access
    assert may(action, Caller(None), thing) == is_public


@given(things, users)
def test_administrators_may_all_that_anyone_may(asked: tuple[str, Any], user: User) -> None:
    action, thing = asked
    admin = User(user.id, user.user_name, memberships=(*user.memberships, admins))
    assert may(action, Caller(admin), thing)


@given(things, users, st.sampled_from(PERMISSIONS))
def test_a_permission_more_never_takes_a_right_away(
    asked: tuple[str, Any], user: User, permission: str
) -> None:
    action, thing = asked
    assume(may(action, Caller(user), thing))
    more = (*user.memberships, Membership("d", frozenset({permission})))
    assert may(action, Caller(User(user.id, user.user_name, memberships=more)), thing)


@given(things, users)
def test_a_limited_proxy_changes_nothing(asked: tuple[str, Any], user: User) -> None:
    action, thing = asked
    limited = Caller(user, reads_only=True)
    assert may(action, limited, thing) == (
        may(action, Caller(user), thing) and not RULES[action].writes
    )


@given(images, users, actions.filter(lambda a: a.startswith("image.") and "group" not in a))
def test_an_image_is_missing_for_those_who_may_neither_see_nor_use_it(
    image: Image, user: User, action: str
) -> None:
    caller = Caller(user)
    if may(action, caller, image):
        assert authorize_image(action, caller, image) is user
    elif may("image.see", caller, image):
        with pytest.raises(NotPermitted) as refused:
            authorize_image(action, caller, image)
        assert refused.value.message == RULES[action].sentence
    else:
        with pytest.raises(Missing):
            authorize_image(action, caller, image)


@given(images, actions)
def test_nobody_learns_the_reason_and_not_whether_it_exists(image: Image, action: str) -> None:
    nobody = Caller(None, reason="You came without a certificate.")
    with pytest.raises(NotIdentified, match="You came without"):
        authorize_image(action, nobody, image)


def test_a_limited_proxy_is_told_so() -> None:
    limited = Caller(User(1, "user1", memberships=(admins,)), reads_only=True)
    with pytest.raises(NotPermitted, match="limited proxy") as refused:
        authorize("user.create", limited)
    assert refused.value.rule == "credential.limited"


def test_a_refusal_names_its_rule() -> None:
    with pytest.raises(NotPermitted) as refused:
        authorize("group.create", Caller(User(1, "user1")))
    assert refused.value.rule == "group.create"
    assert refused.value.message == RULES["group.create"].sentence


def test_a_permission_counts_only_through_a_group_of_the_owner() -> None:
    image = Image(
        id=1,
        uuid="0" * 32,
        name="one",
        owner_id=9,
        owner="user9",
        modified=NOW,
        owner_groups=("a",),
    )
    through = Membership("a", frozenset({"image_modify_group"}))
    beside = Membership("b", frozenset({"image_modify_group"}))
    plain = Membership("a", frozenset())
    assert may("image.modify", Caller(User(1, "user1", memberships=(through,))), image)
    assert not may("image.modify", Caller(User(1, "user1", memberships=(plain, beside))), image)


@given(images, users)
def test_whoever_may_do_anything_to_an_image_reaches_it(image: Image, user: User) -> None:
    """The keys of groups are their names' places here, as the database would have them."""
    keys = {"a": 1, "b": 2, "c": 3}
    theirs = User(
        user.id,
        user.user_name,
        memberships=tuple(
            Membership(m.group, m.permissions, keys[m.group]) for m in user.memberships
        ),
    )
    within = reach(theirs)
    reached = (
        within.everything
        or image.unauthenticated_access
        or image.owner_id == within.user_id
        or theirs.user_name in image.shared_users
        or not {keys[name] for name in image.shared_groups}.isdisjoint(within.groups)
        or not {keys[name] for name in image.owner_groups}.isdisjoint(within.acting)
    )
    asked = [a for a in RULES if a.startswith("image.") and a not in NOT_OF_AN_IMAGE]
    assert reached == any(may(action, Caller(theirs), image) for action in asked)


def test_every_permission_is_asked_for_by_some_rule() -> None:
    sentences = " ".join(rule.sentence for rule in RULES.values())
    assert {p for p in PERMISSIONS if not re.search(rf"\b{p}\b", sentences)} == set()


def test_read_only_holds_for_administrators_too() -> None:
    image = Image(
        id=1, uuid="0" * 32, name="one", owner_id=9, owner="user9", modified=NOW, read_only=True
    )
    with pytest.raises(Protected):
        forbid_changes_to_read_only(image)


def test_somebody_is_identified_by_being_a_user() -> None:
    user = User(1, "user1")
    assert identified(Caller(user)) is user


def test_the_tables_in_the_documentation_are_the_rules() -> None:
    row = r"^\| `([a-z_]+\.[a-z_]+)` \| (.*) \|$"
    rows = dict(re.findall(row, SECURITY.read_text(), re.MULTILINE))
    assert rows == {rule.action: rule.sentence for rule in RULES.values()} | PROTECTIONS
