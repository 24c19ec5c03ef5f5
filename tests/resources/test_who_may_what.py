"""Every action by everybody, over real HTTPS: the answers that the contract has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import field, frozen

from repoman.model import PERMISSIONS
from tests.server import Answer, Daemon, Person

NOBODIES = ("anonymous", "stranger", "suspended")
ORDINARY = ("owner", "friend", "fellow")  # of the group "users"; the image is shared with two
EVERYBODY = (*NOBODIES, *ORDINARY, *PERMISSIONS, "admin")
KNOWN = " ".join((*ORDINARY, *PERMISSIONS, "admin"))
SEEING = "owner friend fellow image_modify admin"


@frozen(kw_only=True)
class Row:
    """An action, and who may.

    :ivar may: those who get ``ok``; nobody in particular gets 403, and so do all others,
        unless the thing is ``hidden`` from them: then 404.
    """

    asked: str
    may: str
    ok: int = 200
    form: Mapping[str, str] | None = None
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    hidden: bool = False
    otherwise: Mapping[str, int] = field(factory=dict)

    def expected(self, who: str) -> int:
        if who in self.otherwise:
            return self.otherwise[who]
        if who in self.may.split():
            return self.ok
        if self.hidden and who not in (*NOBODIES, *SEEING.split()):
            return 404
        return 403


def row(asked: str, may: str, ok: int = 200, **options: Any) -> Row:
    return Row(asked=asked, may=may, ok=ok, **options)


def image_row(asked: str, may: str, ok: int = 200, **options: Any) -> Row:
    return Row(asked=asked, may=may, ok=ok, hidden=True, **options)


def offer_row(asked: str, may: str) -> Row:
    others = [who for who in KNOWN.split() if who not in may.split()]
    return row(asked, may, otherwise=dict.fromkeys(others, 404))


IMAGE, RAW = "/api/images/{owner}/{image}", "/api/images/raw/{owner}/{image}"
MODIFIERS = "owner image_modify image_modify_group admin"
DELETERS = "owner image_delete image_delete_group admin"
SHARERS = "owner friend fellow admin"

ROWS = [
    row("GET /api/openapi.json", " ".join(EVERYBODY)),
    row("GET /api/whoami", KNOWN),
    # users
    row("GET /api/users", KNOWN),
    row("GET /api/users?view=full", KNOWN),
    row("GET /api/users/{target}", KNOWN),
    row("GET /api/users/{target}/images", KNOWN),
    row("GET /api/users/{target}/groups", KNOWN),
    row("GET /api/users/{target}/permissions", KNOWN),
    row("GET /api/users/{owner}/shared", "owner admin"),
    row("GET /api/users/{owner}/sharing", "owner admin"),
    row(
        "POST /api/users",
        "user_create admin",
        form={"user_name": "{new}", "cert_dn": "/C=CA/CN={new}"},
    ),
    row("POST /api/users/{target}", "user_modify admin", form={"full_name": "Somebody"}),
    row("POST /api/users/{target}", "user_modify admin", form={"user_name": "{new}"}),
    row("POST /api/users/{target}", "user_modify admin", form={"suspended": "true"}),
    row(
        "POST /api/users/{me}",
        "owner friend fellow user_modify user_modify_self admin",
        form={"full_name": "Myself", "email": "{me}@example.org"},
    ),
    row("POST /api/users/{me}", "user_modify admin", form={"quota": "1000000"}),
    row("DELETE /api/users/{target}", "user_delete admin"),
    row("DELETE /api/users/{me}", ""),
    # groups
    row("GET /api/groups", KNOWN),
    row("GET /api/groups?view=full", KNOWN),
    row("GET /api/groups/{group}", KNOWN),
    row("GET /api/groups/{group}/shared", KNOWN),
    row("GET /api/groups/{group}/users", KNOWN),
    row("GET /api/groups/{group}/permissions", KNOWN),
    row("POST /api/groups", "group_create admin", form={"name": "{new}", "users": "{target}"}),
    row("POST /api/groups", "admin", form={"name": "{new}", "permissions": "image_create"}),
    row("POST /api/groups/{group}", "group_modify admin", form={"name": "{new}"}),
    row("POST /api/groups/users", "", form={"name": "{new}"}),
    row("DELETE /api/groups/{group}", "group_delete admin"),
    row("DELETE /api/groups/admins", ""),
    row("POST /api/groups/{group}/users/{target}", "group_modify_membership admin"),
    row("DELETE /api/groups/{group}/users/{target}", "group_modify_membership admin"),
    row("DELETE /api/groups/admins/users/{admin}", ""),
    row("POST /api/groups/{group}/permissions/user_create", "group_modify_permissions admin"),
    row("DELETE /api/groups/{group}/permissions/user_create", "group_modify_permissions admin"),
    row("DELETE /api/groups/admins/permissions/user_create", ""),
    # images
    row("GET /api/images", KNOWN),
    row("GET /api/images?view=full", KNOWN),
    row("POST /api/images", "owner friend fellow image_create admin", 201, form={"name": "{new}"}),
    row("POST /api/images", "admin", 201, form={"name": "{new}", "user_name": "{target}"}),
    image_row(f"GET {IMAGE}", SEEING),
    image_row(f"POST {IMAGE}", MODIFIERS, form={"description": "new"}),
    image_row(f"POST {IMAGE}", MODIFIERS, form={"name": "{new}"}),
    image_row(
        f"POST {IMAGE}",
        "owner image_modify admin",
        form={"owner": "{target}"},
        otherwise={"image_modify_group": 403},
    ),
    *(
        image_row(f"POST {IMAGE}", "owner admin", form=form, otherwise={"image_modify_group": 403})
        for form in ({"unauthenticated_access": "true"}, {"hypervisor": "kvm"})
    ),
    image_row(f"DELETE {IMAGE}", DELETERS),
    image_row(f"POST {IMAGE}/share/user/{{target}}", "owner admin"),
    image_row(f"DELETE {IMAGE}/share/user/{{target}}", "owner admin"),
    image_row(f"POST {IMAGE}/share/group/{{circle}}", "owner admin"),
    image_row(f"POST {IMAGE}/share/group/{{group}}", "admin"),
    image_row(f"DELETE {IMAGE}/share/group/{{circle}}", "owner admin"),
    # offers: the image is offered to the friend
    row("GET /api/offers", KNOWN),
    image_row(
        "POST /api/offers",
        "owner admin",
        201,
        form={"name": "{image}", "owner": "{owner}", "recipient": "{target}"},
    ),
    offer_row("GET /api/offers/{owner}/{image}", "owner friend admin"),
    offer_row("DELETE /api/offers/{owner}/{image}", "owner friend admin"),
    row(
        "POST /api/offers/{owner}/{image}",
        "friend",
        otherwise=dict.fromkeys(("fellow", "image_create"), 404),
    ),
    # the caller's own: nobody but the owner has one of that name
    row("GET /api/images/{image}", "owner", otherwise=dict.fromkeys(KNOWN.split()[1:], 404)),
    row("DELETE /api/images/{image}", "owner", otherwise=dict.fromkeys(KNOWN.split()[1:], 404)),
    row("GET /api/images/{owner}/nothing", "", otherwise=dict.fromkeys(KNOWN.split(), 404)),
    # bytes
    image_row(f"GET {RAW}", SHARERS),
    image_row(f"HEAD {RAW}", SHARERS),
    row("GET /api/images/raw/{owner}/{public}", " ".join(EVERYBODY)),
    row("HEAD /api/images/raw/{owner}/xen/{public}", " ".join(EVERYBODY)),
    row("GET /api/images/raw/{owner}/nothing", "", otherwise=dict.fromkeys(KNOWN.split(), 404)),
    image_row(f"PUT {RAW}", "owner admin", body=b"other bytes"),
    image_row("PUT /api/images/raw/{owner}/xen/{image}", "owner admin", body=b"other bytes"),
    image_row("PUT /api/images/raw/{owner}/{public}", "owner admin", body=b"public bytes"),
    image_row(f"POST {RAW}", "owner admin", 201, headers={"Upload-Complete": "?0"}),
    row("GET /api/uploads", KNOWN),
    row("GET /api/uploads/nothing", "", otherwise=dict.fromkeys(KNOWN.split(), 404)),
]


class World:
    """Everybody, and things to do something to."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.admin = daemon.admin
        self._numbers = itertools.count(1)
        self.people: dict[str, Person] = {
            "anonymous": daemon.nobody,
            "stranger": daemon.stranger(),
            "admin": daemon.admin,
            **{who: daemon.newcomer() for who in ("suspended", *ORDINARY, *PERMISSIONS)},
        }
        self.owner = self.people["owner"]
        self.circle = self.group(users=f"{self.owner.name},{self.people['fellow'].name}")
        for permission in PERMISSIONS:
            holder = self.people[permission].name
            through = f",{self.owner.name}" if permission.endswith("_group") else ""
            self.group(users=holder + through, permissions=permission)
            self.do("DELETE", f"/api/groups/users/users/{holder}")
        self.do("POST", f"/api/users/{self.people['suspended'].name}", {"suspended": "true"})
        self.public = self.image(unauthenticated_access="true")
        self.names: dict[str, str] = {}

    def do(self, method: str, path: str, form: Mapping[str, str] | None = None) -> Answer:
        answer = self.admin.ask(method, path, form=form)
        assert answer.status in (200, 201), answer
        return answer

    def new(self) -> str:
        return f"thing{next(self._numbers)}"

    def group(self, **fields: str) -> str:
        name = self.new()
        self.do("POST", "/api/groups", {"name": name, **fields})
        return name

    def user(self) -> str:
        name = self.new()
        self.do("POST", "/api/users", {"user_name": name, "cert_dn": f"/C=CA/CN={name}"})
        return name

    def image(self, **fields: str) -> str:
        name = self.new()
        self.do("POST", "/api/images", {"name": name, "user_name": self.owner.name, **fields})
        stored = self.owner.ask("PUT", f"/api/images/raw/{self.owner.name}/{name}", body=b"bytes")
        assert stored.status == 200, stored
        path = f"/api/images/{self.owner.name}/{name}/share"
        self.do("POST", f"{path}/user/{self.people['friend'].name}")
        self.do("POST", f"{path}/group/{self.circle}")
        return name

    def fresh(self) -> None:
        """Make all things anew that an action may have changed."""
        if self.names:  # one user can have so many offers
            self.owner.ask("DELETE", f"/api/offers/{self.owner.name}/{self.names['image']}")
        self.names = {
            "target": self.user(),
            "group": self.group(permissions="user_create"),
            "image": self.image(),
            "public": self.public,
            "owner": self.owner.name,
            "admin": self.admin.name,
            "circle": self.circle,
        }
        offered = {"name": self.names["image"], "recipient": self.people["friend"].name}
        self.do("POST", "/api/offers", {**offered, "owner": self.owner.name})

    def attempt(self, who: str, row: Row) -> Answer:
        person = self.people[who]
        names = {**self.names, "new": self.new(), "me": person.name or self.owner.name}
        method, path = row.asked.format(**names).split()
        form = {k: v.format(**names) for k, v in row.form.items()} if row.form else None
        return person.ask(method, path, form=form, body=row.body, headers=row.headers)


@pytest.fixture(scope="module")
def world(daemon: Daemon) -> World:
    return World(daemon)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.asked} {','.join(row.form or ())}")
def test_everybody_gets_the_answer_that_is_theirs(world: World, row: Row) -> None:
    world.fresh()
    found = {}
    for who in EVERYBODY:
        answer = world.attempt(who, row)
        found[who] = answer.status
        if answer.status < 300 and not row.asked.startswith(("GET", "HEAD")):
            world.fresh()
        if answer.status >= 400 and not row.asked.startswith("HEAD"):
            assert len(answer.text.splitlines()) == 1
    assert found == {who: row.expected(who) for who in EVERYBODY}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.asked} {','.join(row.form or ())}")
def test_a_limited_proxy_reads_and_changes_nothing(world: World, row: Row) -> None:
    world.people["limited"] = world.daemon.person("Roger Impey", world.admin.name, limited=True)
    if not world.names:
        world.fresh()
    answer = world.attempt("limited", row)
    if row.asked.startswith(("GET", "HEAD")):
        assert answer.status == world.attempt("admin", row).status
    else:
        assert answer.status in (403, 404)
