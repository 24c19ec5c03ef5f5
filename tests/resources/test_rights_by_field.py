"""What permissions to change others' images show of them, and what they leave alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from attrs import define

from tests.server import Answer, Daemon, Person

CONTENT = b"the bytes that are the owner's"

BLIND = ("image_modify_group", "image_delete", "image_delete_group", "both_groups")
"""Holders of permissions that do not let them see the image."""

CHANGEABLE: Mapping[str, str] = {
    "description": "new",
    "os_type": "new",
    "os_arch": "new",
    "os_variant": "new",
    "expires": "2040-01-01",
    "read_only": "true",
    "name": "another",
}
"""Each field that a holder of image_modify or image_modify_group may set."""

REFUSED: tuple[tuple[str, str], ...] = (
    ("unauthenticated_access", "true"),
    ("hypervisor", "kvm"),
    ("hypervisor", "kvm,xen"),
    ("hypervisor", "xen,kvm,qemu"),
)
"""Changes that publish an image, remove a file, or bind an address to other bytes."""


@define
class World:
    """An owner's image, and who holds which permission on it."""

    daemon: Daemon
    owner: Person
    holders: Mapping[str, Person]
    number: int = 0
    image: str = ""

    @property
    def path(self) -> str:
        return f"/api/images/{self.owner.name}/{self.image}"

    @property
    def raw(self) -> str:
        return f"/api/images/raw/{self.owner.name}/xen/{self.image}"

    def fresh(self) -> None:
        self.number += 1
        self.image = f"image{self.number}"
        form = {"name": self.image, "hypervisor": "xen,kvm", "description": "secret"}
        assert self.owner.ask("POST", "/api/images", form=form).status == 201
        assert self.owner.ask("PUT", self.raw, body=CONTENT).status == 200

    def record(self) -> dict[str, object]:
        record: dict[str, object] = self.owner.ask("GET", self.path).json
        return record


@pytest.fixture(scope="module")
def rights(daemon: Daemon) -> World:
    owner = daemon.newcomer()
    holders = {}
    for who, permissions in {
        "image_modify": "image_modify", "image_modify_group": "image_modify_group",
        "image_delete": "image_delete", "image_delete_group": "image_delete_group",
        "both_groups": "image_modify_group,image_delete_group",
    }.items():  # fmt: skip
        holders[who] = daemon.newcomer()
        members = f"{owner.name},{holders[who].name}"
        form = {"name": f"of{holders[who].name}", "users": members, "permissions": permissions}
        assert daemon.admin.ask("POST", "/api/groups", form=form).status == 200
    return World(daemon, owner, holders)


@pytest.fixture
def world(rights: World) -> World:
    rights.fresh()
    return rights


def change(world: World, who: str, form: Mapping[str, str]) -> Answer:
    return world.holders[who].ask("POST", world.path, form=form)


@pytest.mark.parametrize("field", [None, *CHANGEABLE])
@pytest.mark.parametrize("who", ["image_modify_group", "both_groups"])
def test_a_change_shows_nothing_to_those_who_may_not_see_the_image(
    world: World, who: str, field: str | None
) -> None:
    before = world.record()
    value = world.image[::-1] if field == "name" else CHANGEABLE.get(field or "", "")
    answer = change(world, who, {field: value} if field else {})
    assert (answer.status, answer.json) == (200, {})
    assert world.holders[who].ask("GET", world.path).status == 404
    assert world.holders[who].ask("GET", world.raw).status == 404
    world.image = value if field == "name" else world.image
    after = world.record()
    changed = {name for name in after if after[name] != before[name]} - {"modified", "file_url"}
    assert changed == ({field} if field else set())


def test_a_change_shows_the_record_to_those_who_may_see_it(world: World) -> None:
    answer = change(world, "image_modify", {"os_type": "Linux"})
    assert answer.json["os_type"] == "Linux"
    assert len(answer.json) == 21


@pytest.mark.parametrize(("field", "value"), REFUSED)
@pytest.mark.parametrize("who", ["image_modify", "image_modify_group", "both_groups"])
def test_publishing_and_the_files_are_for_the_owner(
    world: World, who: str, field: str, value: str
) -> None:
    before = world.record()
    for form in ({field: value}, {"description": "new", field: value}):
        answer = change(world, who, form)
        assert answer.status == 403
        assert answer.text.startswith("Only the owner may")
    assert world.record() == before
    assert world.owner.ask("GET", world.raw).body == CONTENT
    assert world.owner.ask("POST", world.path, form={field: value}).status == 200


@pytest.mark.parametrize("field", ["unauthenticated_access", "hypervisor"])
def test_what_is_there_already_may_be_said_again_by_those_who_see_it(
    world: World, field: str
) -> None:
    said = {"unauthenticated_access": "false", "hypervisor": "xen,kvm", "description": "new"}
    assert change(world, "image_modify", said).json["description"] == "new"
    # For others the difference would tell what is there.
    assert change(world, "image_modify_group", {field: said[field]}).status == 403


def test_only_the_owner_and_holders_of_image_modify_give_an_image_away(world: World) -> None:
    taker = world.holders["image_modify_group"]
    refused = change(world, "image_modify_group", {"owner": taker.name})
    assert refused.status == 403
    assert "may offer an image" in refused.text
    assert taker.ask("GET", world.raw).status == 404
    assert change(world, "image_modify", {"owner": taker.name}).json["owner_user_name"] == (
        taker.name
    )


@pytest.mark.parametrize("who", BLIND)
def test_who_may_only_delete_or_change_reads_nothing_of_it(world: World, who: str) -> None:
    holder = world.holders[who]
    for method, path in (
        ("GET", world.path), ("GET", f"{world.path}?view=full"), ("GET", world.raw),
        ("POST", f"{world.path}/share/user/{holder.name}"),
    ):  # fmt: skip
        assert holder.ask(method, path).status == 404
    assert world.image not in str(holder.ask("GET", "/api/images?view=full").json)
    if who.startswith("image_delete"):
        assert change(world, who, {}).status == 404
    if who != "image_modify_group":
        assert holder.ask("DELETE", world.path).json == {}


def test_only_administrators_publish_in_anothers_name(world: World) -> None:
    form = {"user_name": world.owner.name, "unauthenticated_access": "true"}
    holder, name = world.holders["image_modify"], f"planted{world.number}"
    made = {"name": f"made{world.number}", "user_name": world.owner.name}
    # The permission to create is everybody's; the one to create for others image_modify's.
    assert holder.ask("POST", "/api/images", form=made).status == 201
    assert holder.ask("POST", "/api/images", form={**form, "name": name}).status == 403
    admin = world.daemon.admin
    assert admin.ask("POST", "/api/images", form={**form, "name": name}).status == 201


def test_a_change_of_oneself_and_of_users_shows_what_one_may_see(daemon: Daemon) -> None:
    creator, number = daemon.newcomer(), daemon.newcomer().name
    form = {"name": f"of{creator.name}", "users": creator.name, "permissions": "user_create"}
    daemon.admin.ask("POST", "/api/groups", form=form)
    new = {"user_name": f"{number}x", "cert_dn": f"/CN={number}x", "email": f"{number}@example.org"}
    made = creator.ask("POST", "/api/users", form=new).json
    assert (made["email"], made["client_dn"]) == (None, None)
    assert creator.ask("POST", f"/api/users/{creator.name}", form={"full_name": "I"}).json[
        "client_dn"
    ] == (creator.dn)
