"""The records of images over HTTPS: bodies key by key, and metadata that is enforced."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest

from tests.server import Answer, Daemon, Person, ask_plain

IMAGE_KEYS = [
    "uuid", "name", "owner_user_name", "owner", "uploaded", "modified", "expires", "checksum",
    "os_variant", "os_type", "os_arch", "hypervisor", "description", "read_only",
    "unauthenticated_access", "http_file_url", "raw_file_uploaded", "version", "size", "file_url",
    "shared_with",
]  # fmt: skip
CTIME = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d \d{4}")


@pytest.fixture(scope="module")
def me(daemon: Daemon) -> Person:
    return daemon.newcomer()


def create(me: Person, name: str, **fields: str) -> Answer:
    made = me.ask("POST", "/api/images", form={"name": name, **fields})
    assert made.status == 201, made
    return made


def put(me: Person, name: str, body: bytes = b"bytes", hypervisor: str = "") -> Answer:
    place = f"{me.name}/{hypervisor}/{name}" if hypervisor else f"{me.name}/{name}"
    return me.ask("PUT", f"/api/images/raw/{place}", body=body)


def change(me: Person, image: str, /, **fields: str) -> Answer:
    return me.ask("POST", f"/api/images/{me.name}/{image}", form=fields)


def test_a_new_image_has_these_21_keys(daemon: Daemon, me: Person) -> None:
    made = create(me, "keys", description="SL", os_type="linux", unauthenticated_access="true")
    body, raw = made.json, f"/api/images/raw/{me.name}/keys"
    assert list(body) == IMAGE_KEYS
    assert made.headers["Location"] == body["file_url"] == daemon.url + raw
    assert re.fullmatch("[0-9a-f]{32}", body.pop("uuid"))
    assert CTIME.fullmatch(body.pop("modified"))
    assert body == {
        "name": "keys", "owner_user_name": me.name, "owner": f"{daemon.url}/api/users/{me.name}",
        "uploaded": None, "expires": None, "checksum": {"type": None, "value": None},
        "os_variant": None, "os_type": "linux", "os_arch": None, "hypervisor": "xen",
        "description": "SL", "read_only": False, "unauthenticated_access": True,
        "http_file_url": daemon.plain + raw, "raw_file_uploaded": False, "version": 0,
        "size": None, "file_url": daemon.url + raw, "shared_with": {"groups": [], "users": []},
    }  # fmt: skip
    put(me, "keys")
    stored = me.ask("GET", "/api/images/keys").json
    assert list(stored) == IMAGE_KEYS
    assert CTIME.fullmatch(stored["uploaded"])
    assert (stored["size"], stored["version"], stored["raw_file_uploaded"]) == (5, 1, True)
    assert stored["checksum"]["type"] == "sha256"
    full = me.ask("GET", "/api/images/keys?view=full").json
    assert list(full) == [*IMAGE_KEYS, "files"]


def test_each_hypervisor_has_its_file(daemon: Daemon, me: Person) -> None:
    create(me, "several", hypervisor="xen, kvm ,newvisor")
    assert put(me, "several").status == 409
    assert put(me, "several", b"for kvm", "kvm").status == 200
    assert put(me, "several", b"xen", "xen").status == 200
    assert put(me, "several", b"xen!", "xen").status == 200
    assert put(me, "several", b"x", "lxc").status == 409
    body = me.ask("GET", "/api/images/several?view=full").json
    assert body["file_url"] == f"{daemon.url}/api/images/raw/{me.name}/__hypervisor__/several"
    assert body["size"] == 4
    files = {name: (f["size"], f["version"]) for name, f in body["files"].items()}
    assert files == {"xen": (4, 2), "kvm": (7, 1)}
    assert me.ask("GET", body["files"]["kvm"]["url"]).body == b"for kvm"
    for default in ("__hypervisor__", "default"):
        assert me.ask("GET", f"/api/images/raw/{me.name}/{default}/several").body == b"xen!"
    assert me.ask("GET", "/api/images/raw/kvm/several").body == b"for kvm"
    assert change(me, "several", hypervisor="kvm").status == 200
    assert me.ask("GET", "/api/images/raw/several").body == b"for kvm"
    assert me.ask("GET", "/api/images/raw/xen/several").status == 404


def test_read_only_holds_until_the_flag_is_cleared(daemon: Daemon, me: Person) -> None:
    create(me, "locked")
    put(me, "locked", b"first")
    assert change(me, "locked", read_only="true").json["read_only"] is True
    refused = [
        put(me, "locked", b"second"),
        change(me, "locked", description="new"),
        change(me, "locked", name="other"),
        change(me, "locked", read_only="true", hypervisor="kvm"),
        me.ask("DELETE", "/api/images/locked"),
        daemon.admin.ask("DELETE", f"/api/images/{me.name}/locked"),
        daemon.admin.ask("PUT", f"/api/images/raw/{me.name}/locked", body=b"third"),
    ]
    assert {r.status for r in refused} == {403}
    assert "read-only" in refused[0].text
    assert me.ask("GET", "/api/images/raw/locked").body == b"first"
    assert me.ask("POST", "/api/images/locked/share/user/impeyr").status == 200
    assert change(me, "locked", read_only="false").status == 200
    assert me.ask("DELETE", "/api/images/locked").status == 200


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2031-03-08", "Sat Mar  8 00:00:00 2031"),
        ("2031-03-08T20:44:17Z", "Sat Mar  8 20:44:17 2031"),
        ("2031-03-08T20:44:17+01:00", "Sat Mar  8 19:44:17 2031"),
        ("2031-03-08 20:44", "Sat Mar  8 20:44:00 2031"),
        ("Sat Mar  8 20:44:17 2031", "Sat Mar  8 20:44:17 2031"),
        ("9999-12-31", "Fri Dec 31 00:00:00 9999"),
        ("", None),
    ],
)
def test_expires_is_read_as_people_write_it(me: Person, sent: str, shown: str | None) -> None:
    name = f"until{abs(hash(sent))}"
    assert create(me, name, expires=sent).json["expires"] == shown


@pytest.mark.parametrize("sent", ["soon", "2031-13-01", "0001-01-01", "9999-12-31T23:59:59-23:59"])
def test_expires_that_is_no_time_is_refused(me: Person, sent: str) -> None:
    refused = me.ask("POST", "/api/images", form={"name": "never", "expires": sent})
    assert refused.status == 400
    assert refused.text.startswith("expires: ")


def test_an_expired_image_keeps_its_record_but_not_its_bytes(daemon: Daemon, me: Person) -> None:
    create(me, "old", unauthenticated_access="true")
    put(me, "old")
    past = (datetime.now(timezone.utc) - timedelta(seconds=5)).isoformat()
    assert change(me, "old", expires=past).status == 200
    raw = f"/api/images/raw/{me.name}/old"
    assert {me.ask("GET", raw).status, daemon.nobody.ask("GET", raw).status} == {410}
    assert ask_plain(daemon.plain + raw).status == 410
    assert me.ask("GET", "/api/images/old").status == 200
    assert change(me, "old", expires="").status == 200
    assert me.ask("GET", raw).body == b"bytes"


def test_rename_leaves_the_bytes_and_conflicts_as_409(me: Person) -> None:
    create(me, "here")
    put(me, "here", b"mine")
    create(me, "there")
    assert change(me, "here", name="there").status == 409
    assert change(me, "here", name="moved").json["name"] == "moved"
    assert me.ask("GET", "/api/images/raw/moved").body == b"mine"


def test_a_gift_of_an_administrators_leaves_the_bytes_and_conflicts_as_409(
    daemon: Daemon, me: Person
) -> None:
    other = daemon.newcomer()
    create(me, "gift")
    put(me, "gift", b"mine")

    def give(owner: str) -> Answer:
        path = f"/api/images/{me.name}/gift"
        return daemon.admin.ask("POST", path, form={"owner": owner})

    unknown = give("nobody-here")
    assert (unknown.status, "nobody-here" in unknown.text) == (400, True)
    other.ask("POST", "/api/images", form={"name": "gift"})
    assert give(other.name).status == 409
    other.ask("DELETE", "/api/images/gift")
    assert give(other.name).json["owner_user_name"] == other.name
    assert other.ask("GET", "/api/images/raw/gift").body == b"mine"
    assert me.ask("GET", f"/api/images/{other.name}/gift").status == 404


def test_unknown_metadata_is_named_as_it_always_was(me: Person) -> None:
    create(me, "plain")
    refused = change(me, "plain", colour="red")
    assert refused.status == 400
    assert refused.text.startswith('The "colour" image metadata does not exist.')


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": ["a"]}, "name"),
        ({"name": "x", "hypervisor": "no/pe"}, "hypervisor"),
        ({"name": "x", "hypervisor": ["raw"]}, "hypervisor"),
        ({"name": "x", "hypervisor": {"a": 1}}, "hypervisor"),
        ({"name": "x", "read_only": "perhaps"}, "read_only"),
        ({"name": "x", "description": 5}, "description"),
        ({"name": "x", "description": "a\0b"}, "description"),
        ({"name": "x", "expires": 12}, "expires"),
    ],
)
def test_an_images_mistake_is_named(me: Person, body: dict[str, object], field: str) -> None:
    refused = me.ask("POST", "/api/images", json=body, headers={"Accept": "application/json"})
    assert (refused.status, refused.json["field"]) == (400, field)
    assert refused.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[1]", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b"[" * 100_000, 400),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/json", b'{"name": "a", "name": "b"}', 400),
        ("application/x-www-form-urlencoded", b"name=" + b"x" * 2**20, 413),
        ("application/x-www-form-urlencoded", b"name=a&name=b", 400),
        ("application/x-www-form-urlencoded", b"name=a&description=%ff", 400),
    ],
)
def test_a_body_that_is_none_is_refused(me: Person, kind: str, body: bytes, status: int) -> None:
    refused = me.ask("POST", "/api/images", body=body, headers={"Content-Type": kind})
    assert refused.status == status


def test_sharing_with_nobody_there_is_400(daemon: Daemon, me: Person) -> None:
    create(me, "offered")
    path = "/api/images/offered/share"
    for target, status in (
        ("user/nobody-here", 400), ("group/nothing-here", 400), ("group/admins", 403),
        ("user/impeyr", 200), ("group/users", 200), ("world/everybody", 404),
    ):  # fmt: skip
        assert me.ask("POST", f"{path}/{target}").status == status
    for target, status in (("user/nobody-here", 400), ("user/impeyr", 200), ("user/impeyr", 200)):
        assert me.ask("DELETE", f"{path}/{target}").status == status
    shared = me.ask("GET", "/api/images/offered").json["shared_with"]
    assert shared == {"groups": [f"{daemon.url}/api/groups/users"], "users": []}
    assert me.ask("DELETE", f"{path}/group/users").status == 200
