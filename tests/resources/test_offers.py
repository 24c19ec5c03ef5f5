"""Giving an image away over HTTPS: by consent, and without learning what the other has."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.server import Answer, Daemon, Person

OFFER_KEYS = [
    "url", "owner_user_name", "recipient_user_name", "made", "ends", "uuid", "name",
    "description",
    "os_variant", "os_type", "os_arch", "hypervisor", "expires", "version", "bytes", "sha256",
]  # fmt: skip


@pytest.fixture
def giver(daemon: Daemon) -> Person:
    return with_image(daemon.newcomer(), "disk", b"bytes")


@pytest.fixture
def friend(daemon: Daemon) -> Person:
    return daemon.newcomer()


def with_image(person: Person, name: str, body: bytes = b"") -> Person:
    assert person.ask("POST", "/api/images", form={"name": name}).status == 201
    if body:
        assert person.ask("PUT", f"/api/images/raw/{name}", body=body).status == 200
    return person


def change(person: Person, name: str, /, **fields: str) -> Answer:
    return person.ask("POST", f"/api/images/{name}", form=fields)


def accept(person: Person, giver: Person, image: str = "disk", /, **fields: str) -> Answer:
    return person.ask("POST", f"/api/offers/{giver.name}/{image}", form=fields)


def used(person: Person) -> int:
    count: int = person.ask("GET", "/api/whoami?view=full").json["used"]
    return count


def by_modification(giver: Person, recipient: str) -> Answer:
    return change(giver, "disk", owner=recipient)


def by_offer(giver: Person, recipient: str) -> Answer:
    form = {"name": "disk", "recipient": recipient}
    return giver.ask("POST", "/api/offers", form=form)


WAYS = pytest.mark.parametrize("give", [by_modification, by_offer])
Give = Callable[[Person, str], Answer]


def test_an_owner_in_a_modification_is_an_offer_and_leaves_the_record_as_it_is(
    giver: Person, friend: Person
) -> None:
    before = giver.ask("GET", "/api/images/disk")
    answer = change(giver, "disk", owner=friend.name)
    assert (answer.status, answer.json) == (200, before.json)
    assert giver.ask("GET", "/api/images/disk").json == before.json
    assert (used(giver), used(friend)) == (5, 0)
    assert friend.ask("GET", "/api/images").json == []
    assert friend.ask("GET", f"/api/images/{giver.name}/disk").status == 404
    assert friend.ask("GET", f"/api/images/raw/{giver.name}/disk").status == 404


def test_what_else_is_modified_with_the_owner_is_modified(giver: Person, friend: Person) -> None:
    changed = change(giver, "disk", owner=friend.name, name="other", description="new").json
    assert (changed["owner_user_name"], changed["name"], changed["description"]) == (
        giver.name, "other", "new",
    )  # fmt: skip
    assert accept(friend, giver, "other").json["description"] == "new"


@WAYS
def test_the_recipient_sees_what_is_offered_and_accepts_it(
    giver: Person, friend: Person, give: Give
) -> None:
    giver.ask("POST", f"/api/images/disk/share/user/{friend.name}")
    assert give(giver, friend.name).status in (200, 201)
    for person in (giver, friend):
        [offer] = person.ask("GET", "/api/offers").json
        assert list(offer) == OFFER_KEYS
        assert (offer["owner_user_name"], offer["recipient_user_name"]) == (giver.name, friend.name)
        assert (offer["name"], offer["bytes"], offer["version"]) == ("disk", 5, 1)
        assert person.ask("GET", offer["url"]).json == offer
    taken = accept(friend, giver)
    assert (taken.status, taken.json["owner_user_name"]) == (200, friend.name)
    assert friend.ask("GET", "/api/images/raw/disk").body == b"bytes"
    assert (used(giver), used(friend)) == (0, 5)
    assert giver.ask("GET", "/api/offers").json == friend.ask("GET", "/api/offers").json == []
    assert accept(friend, giver).status == 404


@pytest.mark.parametrize("at_once", [False, True])
def test_shares_and_public_access_end_with_the_owner(
    daemon: Daemon, giver: Person, friend: Person, at_once: bool
) -> None:
    third = daemon.newcomer()
    change(giver, "disk", unauthenticated_access="true")
    daemon.admin.ask("POST", f"/api/groups/users/users/{giver.name}")
    for path in (f"user/{giver.name}", f"user/{third.name}", "group/users"):
        assert giver.ask("POST", f"/api/images/disk/share/{path}").status == 200
    if at_once:
        form = {"owner": friend.name, "unauthenticated_access": "true"}
        after = daemon.admin.ask("POST", f"/api/images/{giver.name}/disk", form=form)
    else:
        by_modification(giver, friend.name)
        after = accept(friend, giver)
    assert after.json["owner_user_name"] == friend.name
    assert after.json["shared_with"] == {"groups": [], "users": []}
    assert (after.json["unauthenticated_access"], after.json["http_file_url"]) == (False, None)
    friend.ask("PUT", "/api/images/raw/disk", body=b"the new owner's secret")
    for person in (giver, third):
        assert person.ask("GET", f"/api/images/raw/{friend.name}/disk").status == 404
        assert person.ask("GET", f"/api/images/{friend.name}/disk").status == 404
        assert person.ask("GET", "/api/images?view=full").json == []
    assert daemon.nobody.ask("GET", f"/api/images/raw/{friend.name}/disk").status == 403


def has_one_of_the_name(daemon: Daemon, friend: Person) -> None:
    with_image(friend, "disk")


def has_no_room(daemon: Daemon, friend: Person) -> None:
    daemon.admin.ask("POST", f"/api/users/{friend.name}", form={"quota": "4"})


def is_suspended(daemon: Daemon, friend: Person) -> None:
    daemon.admin.ask("POST", f"/api/users/{friend.name}", form={"suspended": "true"})


def may_create_nothing(daemon: Daemon, friend: Person) -> None:
    daemon.admin.ask("DELETE", f"/api/groups/users/users/{friend.name}")


def has_nothing(daemon: Daemon, friend: Person) -> None:
    pass


@WAYS
def test_an_offer_says_nothing_of_what_the_recipient_has(
    daemon: Daemon, giver: Person, give: Give
) -> None:
    answers = []
    for has in (
        has_nothing, has_one_of_the_name, has_no_room, is_suspended, may_create_nothing,
    ):  # fmt: skip
        friend = daemon.newcomer()
        has(daemon, friend)
        answer = give(giver, friend.name)
        seen = [answer.text, giver.ask("GET", "/api/offers").text]
        same = [text.replace(friend.name, "friend") for text in seen]
        answers.append((answer.status, [_without(text, ("made", "ends")) for text in same]))
    assert all(answer == answers[0] for answer in answers), answers


def _without(text: str, keys: tuple[str, ...]) -> str:
    data = json.loads(text)
    for one in data if isinstance(data, list) else [data]:
        for key in keys:
            one.pop(key, None)
    return json.dumps(data)


def test_what_stands_in_the_way_is_told_to_the_recipient_alone(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    with_image(friend, "disk")
    by_modification(giver, friend.name)
    taken = accept(friend, giver)
    assert (taken.status, "under another name" in taken.text) == (409, True)
    daemon.admin.ask("POST", f"/api/users/{friend.name}", form={"quota": "4"})
    full = accept(friend, giver, name="gift")
    assert (full.status, "no room for the image's 5 bytes" in full.text) == (413, True)
    daemon.admin.ask("POST", f"/api/users/{friend.name}", form={"quota": "5"})
    assert accept(friend, giver, name="not/aname").status == 400
    assert accept(friend, giver, name="gift", version="2").status == 409
    assert accept(friend, giver, name="gift", version="1").json["name"] == "gift"
    assert friend.ask("GET", "/api/images/raw/gift").body == b"bytes"


@WAYS
@pytest.mark.parametrize("name", ["nobody-here", "no such", "../x", "x" * 200])
def test_nobody_is_offered_anything_who_is_no_user(giver: Person, name: str, give: Give) -> None:
    answer = give(giver, name)
    assert answer.status == 400
    assert len(answer.text) < 200
    assert giver.ask("GET", "/api/offers").json == []


def test_what_came_into_the_place_of_what_was_seen_is_not_accepted(
    giver: Person, friend: Person
) -> None:
    by_modification(giver, friend.name)
    [seen] = friend.ask("GET", "/api/offers").json
    known = {"uuid": seen["uuid"], "version": str(seen["version"])}
    giver.ask("DELETE", "/api/images/disk")
    with_image(giver, "disk", b"something else")
    by_modification(giver, friend.name)
    refused = accept(friend, giver, **known)
    assert (refused.status, "Another image is offered" in refused.text) == (409, True)
    [seen] = friend.ask("GET", "/api/offers").json
    giver.ask("PUT", "/api/images/raw/disk", body=b"something else again")
    refused = accept(friend, giver, uuid=seen["uuid"], version=str(seen["version"]))
    assert (refused.status, "other files since you looked" in refused.text) == (409, True)
    assert accept(friend, giver, uuid=seen["uuid"], version="2").status == 200


def test_an_image_is_offered_to_one_at_a_time(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    other = daemon.newcomer()
    by_modification(giver, friend.name)
    by_modification(giver, other.name)
    assert accept(friend, giver).status == 404
    assert friend.ask("GET", "/api/offers").json == []
    assert accept(other, giver).status == 200


@pytest.mark.parametrize("who", ["friend", "giver", "admin", "giver, by the owner they have"])
def test_an_offer_is_declined_or_withdrawn(
    daemon: Daemon, giver: Person, friend: Person, who: str
) -> None:
    by_modification(giver, friend.name)
    if who == "giver, by the owner they have":
        assert by_modification(giver, giver.name).json["owner_user_name"] == giver.name
    else:
        person = {"friend": friend, "giver": giver, "admin": daemon.admin}[who]
        ended = person.ask("DELETE", f"/api/offers/{giver.name}/disk")
        assert (ended.status, ended.json) == (200, {})
        assert person.ask("DELETE", f"/api/offers/{giver.name}/disk").status == 404
    assert accept(friend, giver).status == 404
    assert giver.ask("GET", "/api/offers").json == friend.ask("GET", "/api/offers").json == []
    assert giver.ask("GET", "/api/images/raw/disk").body == b"bytes"
    [row] = daemon.admin.ask("GET", f"/api/audit?subject={giver.name}/disk&limit=1").json
    assert row["action"] == ("image.decline" if who == "friend" else "image.withdraw")


def test_offers_are_nobody_elses_business(daemon: Daemon, giver: Person, friend: Person) -> None:
    third = daemon.newcomer()
    nothing = [
        third.ask(method, f"/api/offers/{giver.name}/disk") for method in ("GET", "POST", "DELETE")
    ]
    by_modification(giver, friend.name)
    there = [
        third.ask(method, f"/api/offers/{giver.name}/disk") for method in ("GET", "POST", "DELETE")
    ]
    assert [(a.status, a.text) for a in there] == [(a.status, a.text) for a in nothing]
    assert {a.status for a in there} == {404}
    assert third.ask("GET", "/api/offers").json == []
    # Who sees it without being asked is told so.
    for person in (giver, daemon.admin):
        assert accept(person, giver).status == 403
        assert "to whom an image is offered" in accept(person, giver).text


def test_a_limited_proxy_neither_offers_nor_accepts_nor_declines(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    weak_giver, weak_friend = (
        daemon.person(person.dn.rpartition("=")[2], person.name, limited=True)
        for person in (giver, friend)
    )
    assert [by_modification(weak_giver, friend.name).status,
            by_offer(weak_giver, friend.name).status] == [403, 403]  # fmt: skip
    by_modification(giver, friend.name)
    assert weak_friend.ask("GET", f"/api/offers/{giver.name}/disk").status == 200
    assert accept(weak_friend, giver).status == 403
    for weak in (weak_friend, weak_giver):
        assert weak.ask("DELETE", f"/api/offers/{giver.name}/disk").status == 403
    assert accept(friend, giver).status == 200


def test_who_may_create_no_image_accepts_none(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    by_modification(giver, friend.name)
    may_create_nothing(daemon, friend)
    assert accept(friend, giver).status == 403
    assert friend.ask("DELETE", f"/api/offers/{giver.name}/disk").status == 200


def test_what_a_stolen_proxy_has_offered_ends_with_the_suspension(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    by_modification(giver, friend.name)
    is_suspended(daemon, giver)
    assert friend.ask("GET", "/api/offers").json == []
    assert accept(friend, giver).status == 404


@pytest.mark.parametrize("holder", ["admin", "image_modify", "owner with image_modify"])
def test_administrators_and_image_modify_give_at_once(
    daemon: Daemon, giver: Person, friend: Person, holder: str
) -> None:
    person = daemon.admin
    if holder != "admin":
        person = giver if holder.startswith("owner") else daemon.newcomer()
        form = {"name": f"givers-{person.name}", "users": person.name}
        daemon.admin.ask("POST", "/api/groups", form={**form, "permissions": "image_modify"})
    given = person.ask("POST", f"/api/images/{giver.name}/disk", form={"owner": friend.name})
    assert given.json["owner_user_name"] == friend.name
    assert (used(giver), used(friend)) == (0, 5)


def test_who_may_only_modify_neither_gives_nor_offers(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    member = daemon.newcomer()
    form = {"name": f"of-{giver.name}", "users": f"{giver.name},{member.name}"}
    daemon.admin.ask("POST", "/api/groups", form={**form, "permissions": "image_modify_group"})
    path = f"/api/images/{giver.name}/disk"
    assert member.ask("POST", path, form={"description": "mine to say"}).status == 200
    assert member.ask("POST", path, form={"owner": friend.name}).status == 403
    assert member.ask("POST", path, form={"owner": member.name}).status == 403
    form = {"name": "disk", "owner": giver.name, "recipient": member.name}
    assert member.ask("POST", "/api/offers", form=form).status == 404
    giver.ask("POST", f"/api/images/disk/share/user/{member.name}")
    assert member.ask("POST", "/api/offers", form=form).status == 403
    assert giver.ask("GET", "/api/offers").json == []


def test_a_read_only_image_is_not_offered(giver: Person, friend: Person) -> None:
    change(giver, "disk", read_only="true")
    assert {by_modification(giver, friend.name).status, by_offer(giver, friend.name).status} == {
        403
    }
    assert change(giver, "disk", read_only="false", owner=friend.name).status == 200
    change(giver, "disk", read_only="true")
    refused = accept(friend, giver)
    assert (refused.status, "has been made read-only" in refused.text) == (403, True)


def test_an_upload_that_runs_does_not_reach_the_new_owner(giver: Person, friend: Person) -> None:
    begun = giver.ask("POST", "/api/images/raw/disk", headers={"Upload-Complete": "?0"})
    place = begun.headers["Location"]
    by_modification(giver, friend.name)
    assert giver.ask("HEAD", place).status == 200
    accept(friend, giver)
    assert giver.ask("HEAD", place).status == 404
    assert friend.ask("GET", "/api/images/raw/disk").body == b"bytes"


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "name"), ({"name": "disk"}, "recipient"), ({"name": "disk", "recipient": "{me}"},
        "recipient"), ({"name": "disk", "recipient": "a", "colour": "red"}, "colour"),
    ],
)  # fmt: skip
def test_an_offers_mistake_is_named(giver: Person, form: dict[str, str], field: str) -> None:
    sent = {key: value.replace("{me}", giver.name) for key, value in form.items()}
    refused = giver.ask("POST", "/api/offers", json=sent, headers={"Accept": "application/json"})
    assert (refused.status, refused.json["field"]) == (400, field)


def test_who_may_change_others_images_withdraws_no_offer_by_saying_the_owner_again(
    daemon: Daemon, giver: Person, friend: Person
) -> None:
    change(giver, "disk", owner=friend.name)
    holder = daemon.newcomer()
    form = {"name": f"of-{holder.name}", "users": holder.name, "permissions": "image_modify"}
    assert daemon.admin.ask("POST", "/api/groups", form=form).status == 200
    said = {"owner": giver.name, "description": "said again"}
    answer = holder.ask("POST", f"/api/images/{giver.name}/disk", form=said)
    assert (answer.status, answer.json["description"]) == (200, "said again")
    assert len(friend.ask("GET", "/api/offers").json) == 1
    change(giver, "disk", owner=giver.name)
    assert friend.ask("GET", "/api/offers").json == []
