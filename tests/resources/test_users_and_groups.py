"""Users and groups over HTTPS, key by key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.server import Daemon, Person

USER_KEYS = [
    "user_name", "full_name", "email", "client_dn", "suspended", "permissions", "groups", "images",
]  # fmt: skip


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> Person:
    alice = daemon.newcomer(full_name="Alice A", email="alice@example.org")
    assert alice.ask("POST", "/api/images", form={"name": "secret"}).status == 201
    return alice


def test_a_user_has_these_keys(daemon: Daemon, alice: Person) -> None:
    url = daemon.url + "/api"
    assert alice.ask("GET", f"/api/users/{alice.name}").json == {
        "user_name": alice.name,
        "full_name": "Alice A",
        "email": "alice@example.org",
        "client_dn": alice.dn,
        "suspended": False,
        "permissions": ["image_create", "user_modify_self"],
        "groups": [f"{url}/groups/users"],
        "images": [f"{url}/images/{alice.name}/secret"],
    }
    assert list(alice.ask("GET", "/api/whoami").json) == USER_KEYS


def test_others_do_not_see_what_is_private(daemon: Daemon, alice: Person) -> None:
    other, clerk = daemon.newcomer(), daemon.newcomer()
    clerks = f"clerks-of-{clerk.name}"
    form = {"name": clerks, "users": clerk.name, "permissions": "user_modify"}
    daemon.admin.ask("POST", "/api/groups", form=form)
    path = f"/api/users/{alice.name}"
    seen = other.ask("GET", path).json
    assert (seen["email"], seen["client_dn"], seen["images"]) == (None, None, [])
    everybody = {u["user_name"]: u for u in other.ask("GET", "/api/users?view=full").json}
    private = ("email", "client_dn", "client_dns", "quota", "used")
    assert [everybody[alice.name][key] for key in private] == [None] * 5
    assert everybody[alice.name]["images"] == []
    assert everybody[other.name]["client_dns"] == [other.dn]
    for who in (alice, clerk, daemon.admin):
        seen = who.ask("GET", path).json
        assert (seen["email"], seen["client_dn"]) == ("alice@example.org", alice.dn)
        assert len(seen["images"]) == 1
    # ... and a list of images is not a private matter of the record's
    assert clerk.ask("GET", f"{path}/images").json == []
    alice.ask("POST", f"/api/images/secret/share/user/{other.name}")
    assert len(other.ask("GET", path).json["images"]) == 1
    alice.ask("DELETE", f"/api/images/secret/share/user/{other.name}")


def test_a_user_is_made_of_a_form_or_of_json(daemon: Daemon) -> None:
    bodies = [
        {"form": {"user_name": "formed", "cert_dn": "/CN=formed", "groups": "users,admins",
                  "suspended": "true", "client_dns": "/CN=f, 2\n/CN=f 3", "quota": "5"}},
        {"json": {"user_name": "jason", "cert_dn": "/CN=jason", "groups": ["users", "admins"],
                  "suspended": True, "client_dns": ["/CN=j, 2", "/CN=j 3"], "quota": 5}},
    ]  # fmt: skip
    for body in bodies:
        made = daemon.admin.ask("POST", "/api/users?view=full", **body)
        assert made.status == 200, made
        assert [u.rsplit("/", 1)[1] for u in made.json["groups"]] == ["admins", "users"]
        assert made.json["suspended"] is True
        assert made.json["quota"] == 5
        assert len(made.json["client_dns"]) == 3
        daemon.admin.ask("DELETE", f"/api/users/{made.json['user_name']}")


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({"user_name": "new"}, 400, "cert_dn"),
        ({"cert_dn": "/CN=new"}, 400, "user_name"),
        ({"user_name": "bad name", "cert_dn": "/CN=new"}, 400, "user_name"),
        ({"user_name": "n" * 101, "cert_dn": "/CN=new"}, 400, "user_name"),
        ({"user_name": "new", "cert_dn": "CN=new"}, 400, "cert_dn"),
        ({"user_name": "new", "cert_dn": "/CN=new", "client_dns": "new"}, 400, "client_dns"),
        ({"user_name": "new", "cert_dn": "/CN=new", "issuer_dn": "new"}, 400, "issuer_dn"),
        ({"user_name": "new", "cert_dn": "/CN=new", "groups": "nothing"}, 400, "groups"),
        ({"user_name": "new", "cert_dn": "/CN=new", "suspended": "maybe"}, 400, "suspended"),
        ({"user_name": "new", "cert_dn": "/CN=new", "quota": "much"}, 400, "quota"),
        ({"user_name": "new", "cert_dn": "/CN=new", "shoe": "44"}, 400, "shoe"),
        ({"user_name": "impeyr", "cert_dn": "/CN=new"}, 409, "user_name"),
        ({"user_name": "kvm", "cert_dn": "/CN=new"}, 409, "user_name"),
        ({"user_name": "raw", "cert_dn": "/CN=new"}, 409, "user_name"),
        ({"user_name": "new", "cert_dn": "/C=CA/O=Grid/CN=Roger Impey"}, 409, "cert_dn"),
        ({"user_name": "new", "cert_dn": "/CN=new", "email": "impeyr@example.org"}, 409, "email"),
    ],
)
def test_a_mistake_is_named(daemon: Daemon, form: dict[str, str], status: int, field: str) -> None:
    refused = daemon.admin.ask(
        "POST", "/api/users", form=form, headers={"Accept": "application/json"}
    )
    assert (refused.status, refused.json["field"]) == (status, field)
    assert daemon.admin.ask("GET", "/api/users/new").status == 404


def test_users_change_their_own_name_and_address_only(daemon: Daemon) -> None:
    me = daemon.newcomer()
    path = f"/api/users/{me.name}"
    changed = me.ask("POST", path, form={"full_name": "Me Myself", "email": f"{me.name}@here"})
    assert (changed.status, changed.json["full_name"]) == (200, "Me Myself")
    for form in ({"suspended": "false"}, {"cert_dn": me.dn}, {"user_name": "x"}, {"quota": "1"}):
        assert me.ask("POST", path, form={"full_name": "No", **form}).status == 403
    assert me.ask("GET", path).json["full_name"] == "Me Myself"
    assert me.ask("POST", path, form={"email": ""}).json["email"] is None


@pytest.mark.parametrize("form", [{}, {"full_name": "Me"}], ids=["alone", "with the name"])
def test_nobody_learns_who_has_an_address_by_taking_it(
    daemon: Daemon, form: dict[str, str]
) -> None:
    me, other = daemon.newcomer(), daemon.newcomer()
    address, path = f"{other.name}@example.org", f"/api/users/{me.name}"
    assert daemon.admin.ask("POST", f"/api/users/{other.name}", form={"email": address}).status == (
        200
    )
    free = me.ask("POST", path, form={"email": f"{me.name}@example.org", **form})
    taken = me.ask("POST", path, form={"email": address, **form})
    assert (free.status, taken.status) == (200, 200)
    assert taken.json == {**free.json, "email": address}
    assert other.ask("GET", f"/api/users/{other.name}").json["email"] == address
    # For administrators, who see the addresses, they stay exact.
    assert daemon.admin.ask("POST", path, form={"email": address, "full_name": "x"}).status == 200
    daemon.admin.ask("POST", path, form={"email": f"{me.name}@here"})
    assert daemon.admin.ask("POST", path, form={"email": address}).status == 409
    new = {"user_name": f"{me.name}n", "cert_dn": f"/CN={me.name}n", "email": address}
    assert daemon.admin.ask("POST", "/api/users", form=new).status == 409


def test_cert_dn_replaces_the_first_dn(daemon: Daemon) -> None:
    me, spare = daemon.newcomer(), daemon.person("My Spare")
    path = f"/api/users/{me.name}?view=full"
    daemon.admin.ask("POST", path, form={"client_dns": f"{me.dn}\n{spare.dn}"})
    assert spare.ask("GET", "/api/whoami").json["user_name"] == me.name
    changed = daemon.admin.ask("POST", path, form={"cert_dn": "/C=CA/O=Grid/CN=New Name"})
    assert changed.json["client_dns"] == ["/C=CA/O=Grid/CN=New Name", spare.dn]
    assert me.ask("GET", "/api/whoami").status == 403
    assert spare.ask("GET", "/api/whoami").json["client_dn"] == "/C=CA/O=Grid/CN=New Name"
    assert daemon.admin.ask("POST", path, form={"client_dns": ""}).status == 400


def test_the_issuer_counts(daemon: Daemon) -> None:
    right = daemon.newcomer(issuer_dn="/C=CA/O=Grid/CN=Test CA")
    wrong = daemon.newcomer(issuer_dn="/C=CA/O=Grid/CN=Another CA")
    assert right.ask("GET", "/api/whoami").status == 200
    refused = wrong.ask("GET", "/api/whoami")
    assert refused.status == 403
    assert wrong.dn in refused.text
    daemon.admin.ask("POST", f"/api/users/{wrong.name}", form={"issuer_dn": ""})
    assert wrong.ask("GET", "/api/whoami").status == 200


def test_suspension_holds_from_the_next_request_on(daemon: Daemon) -> None:
    me = daemon.newcomer()
    assert me.ask("GET", "/api/whoami").status == 200
    daemon.admin.ask("POST", f"/api/users/{me.name}", form={"suspended": "true"})
    refused = me.ask("GET", "/api/whoami")  # on the same connection
    assert (refused.status, refused.text) == (403, f"User {me.name} is suspended.\n")
    daemon.admin.ask("POST", f"/api/users/{me.name}", form={"suspended": "false"})
    assert me.ask("GET", "/api/whoami").status == 200


def test_deleting_a_user_removes_images_and_frees_the_names(daemon: Daemon) -> None:
    me = daemon.newcomer(email="gone@example.org")
    me.ask("POST", "/api/images", form={"name": "one"})
    assert me.ask("PUT", "/api/images/raw/one", body=b"bytes").status == 200
    assert daemon.admin.ask("DELETE", f"/api/users/{me.name}").status == 200
    assert me.ask("GET", "/api/whoami").status == 403
    assert daemon.admin.ask("GET", f"/api/images/raw/{me.name}/one").status == 404
    again = {"user_name": me.name, "cert_dn": me.dn, "email": "gone@example.org"}
    assert daemon.admin.ask("POST", "/api/users", form=again).status == 200
    assert me.ask("GET", "/api/whoami").json["images"] == []


def test_renaming_a_user_keeps_the_bytes_in_place(daemon: Daemon) -> None:
    me = daemon.newcomer()
    me.ask("POST", "/api/images", form={"name": "one"})
    me.ask("PUT", "/api/images/raw/one", body=b"bytes")
    new = f"{me.name}-renamed"
    assert daemon.admin.ask("POST", f"/api/users/{me.name}", form={"user_name": new}).status == 200
    assert me.ask("GET", f"/api/images/raw/{new}/one").body == b"bytes"
    assert me.ask("GET", f"/api/images/raw/{me.name}/one").status == 404
    taken = daemon.admin.ask("POST", f"/api/users/{new}", form={"user_name": "impeyr"})
    assert taken.status == 409


def test_two_administrators_who_remove_each_other_leave_one(daemon: Daemon) -> None:
    root = "/api/groups/admins/users"
    # A third one would survive both, and the daemon that all share had no administrator of ours.
    assert daemon.admin.ask("GET", root).json == [f"{daemon.url}/api/users/{daemon.admin.name}"]
    one, two = daemon.newcomer(groups="admins"), daemon.newcomer(groups="admins")
    assert one.ask("DELETE", f"{root}/{daemon.admin.name}").status == 200
    try:
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(one.ask, "DELETE", f"{root}/{two.name}"),
                pool.submit(two.ask, "DELETE", f"{root}/{one.name}"),
            ]
            assert sorted(a.result().status for a in asked) == [200, 403]
        left = [p for p in (one, two) if "user_delete" in p.ask("GET", "/api/whoami").text]
        assert len(left) == 1
    finally:
        for person in (one, two):
            person.ask("POST", f"{root}/{daemon.admin.name}")
        for person in (one, two):
            daemon.admin.ask("DELETE", f"{root}/{person.name}")
    assert daemon.admin.ask("GET", root).json == [f"{daemon.url}/api/users/{daemon.admin.name}"]


def test_a_group_has_these_keys(daemon: Daemon, alice: Person) -> None:
    form = {"name": "readers", "users": f"{alice.name}, impeyr", "permissions": "user_create"}
    made = daemon.admin.ask("POST", "/api/groups", form=form)
    group = {
        "name": "readers",
        "permissions": ["user_create"],
        "users": sorted(f"{daemon.url}/api/users/{n}" for n in (alice.name, "impeyr")),
    }
    assert (made.status, made.json) == (200, group)
    assert list(made.json) == list(group)
    assert alice.ask("GET", "/api/groups/readers").json == group
    assert group in alice.ask("GET", "/api/groups?view=full").json
    assert alice.ask("GET", "/api/groups/readers/users").json == group["users"]
    assert alice.ask("GET", "/api/groups/readers/permissions").json == ["user_create"]
    assert (
        f"{daemon.url}/api/groups/readers"
        in alice.ask("GET", f"/api/users/{alice.name}/groups").json
    )
    assert "user_create" in alice.ask("GET", f"/api/users/{alice.name}/permissions").json
    members = alice.ask("GET", "/api/groups/readers/users?view=full").json
    assert [m["user_name"] for m in members] == sorted([alice.name, "impeyr"])
    assert daemon.admin.ask("DELETE", "/api/groups/readers").status == 200
    assert alice.ask("GET", "/api/groups/readers").status == 404


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({}, 400, "name"),
        ({"name": "a.b"}, 400, "name"),
        ({"name": "admins"}, 409, "name"),
        ({"name": "new", "users": "nobody-here"}, 400, "users"),
        ({"name": "new", "permissions": "fly"}, 400, "permissions"),
        ({"name": "new", "colour": "red"}, 400, "colour"),
    ],
)
def test_a_groups_mistake_is_named(
    daemon: Daemon, form: dict[str, str], status: int, field: str
) -> None:
    refused = daemon.admin.ask(
        "POST", "/api/groups", form=form, headers={"Accept": "application/json"}
    )
    assert (refused.status, refused.json["field"]) == (status, field)
    assert daemon.admin.ask("GET", "/api/groups/new").status == 404


def test_members_and_permissions_come_and_go_harmlessly_twice(daemon: Daemon) -> None:
    me = daemon.newcomer()
    admin, group = daemon.admin, f"g-{me.name}"
    admin.ask("POST", "/api/groups", form={"name": group})
    for thing in (f"users/{me.name}", "permissions/group_create"):
        path = f"/api/groups/{group}/{thing}"
        for method, there in (("POST", True), ("POST", True), ("DELETE", False), ("DELETE", False)):
            assert admin.ask(method, path).status == 200
            listed = admin.ask("GET", path.rpartition("/")[0]).text
            assert (thing.partition("/")[2] in listed) is there
    for path in (
        f"/api/groups/{group}/users/nobody-here",
        f"/api/groups/nothing/users/{me.name}",
        f"/api/groups/{group}/permissions/fly",
        "/api/groups/nothing/permissions/user_create",
    ):
        for method in ("POST", "DELETE"):
            assert admin.ask(method, path).status == 404


def test_a_groups_shared_images_are_those_that_one_may_see(daemon: Daemon) -> None:
    owner, member, other = (daemon.newcomer() for _ in range(3))
    group = f"g-{owner.name}"
    users = f"{owner.name},{member.name}"
    daemon.admin.ask("POST", "/api/groups", form={"name": group, "users": users})
    owner.ask("POST", "/api/images", form={"name": "one"})
    assert owner.ask("POST", f"/api/images/one/share/group/{group}").status == 200
    url = f"{daemon.url}/api/images/{owner.name}/one"
    assert member.ask("GET", f"/api/groups/{group}/shared").json == [url]
    assert member.ask("GET", f"/api/users/{member.name}/shared").json == [url]
    assert owner.ask("GET", f"/api/users/{owner.name}/sharing").json == [url]
    assert other.ask("GET", f"/api/groups/{group}/shared").json == []
    full = member.ask("GET", f"/api/groups/{group}/shared?view=full").json
    assert full[0]["shared_with"]["groups"] == [f"{daemon.url}/api/groups/{group}"]
    daemon.admin.ask("POST", f"/api/groups/{group}", form={"name": f"{group}-2"})
    assert member.ask("GET", f"/api/groups/{group}-2/shared").json == [url]
    daemon.admin.ask("DELETE", f"/api/groups/{group}-2")
    assert member.ask("GET", f"/api/images/{owner.name}/one").status == 404
