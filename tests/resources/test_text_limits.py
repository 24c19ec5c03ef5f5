"""Every text has an end, whichever way it comes in; what was there before stays readable."""

from __future__ import annotations

from typing import Any

import pytest

from repoman.errors import Invalid
from repoman.model import MOST_DNS
from repoman.original import plan
from repoman.records import NewImage
from repoman.texts import TEXT_LIMITS
from repoman.user_records import NewUser
from tests.postgres import on_server
from tests.server import Daemon, Person

IMAGE_TEXTS = ("description", "os_variant", "os_type", "os_arch")
USER_TEXTS = ("full_name", "email")


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> Person:
    alice = daemon.newcomer()
    alice.ask("POST", "/api/images", form={"name": "one"})
    return alice


def longest(name: str) -> str:
    """As many bytes as a field may have, not of one letter only."""
    limit = TEXT_LIMITS[name]
    return "é" * (limit // 2) + "x" * (limit % 2)


def test_every_text_of_a_record_has_a_limit() -> None:
    texts = {
        name for new in (NewImage, NewUser) for name, kind in new.__annotations__.items()
        if kind == "str | None" and not name.endswith("_dn")
    }  # fmt: skip
    assert texts == set(TEXT_LIMITS)


@pytest.mark.parametrize("name", IMAGE_TEXTS)
@pytest.mark.parametrize("way", ["create", "change", "json"])
def test_a_long_text_of_an_image_is_refused_by_name(alice: Person, name: str, way: str) -> None:
    target = "/api/images" if way == "create" else "/api/images/one"
    body: dict[str, Any] = {"form": {name: longest(name) + "x"}}
    if way == "create":
        body["form"]["name"] = "two"
    if way == "json":
        body = {"json": body["form"]}
    answer = alice.ask("POST", target, **body, headers={"Accept": "application/json"})
    assert (answer.status, answer.json["field"]) == (400, name)
    assert str(TEXT_LIMITS[name]) in answer.json["detail"]
    body = {way if way == "json" else "form": {**next(iter(body.values())), name: longest(name)}}
    answer = alice.ask("POST", target, **body)
    assert answer.status in (200, 201), answer
    assert answer.json[name] == longest(name)
    alice.ask("DELETE", "/api/images/two")


@pytest.mark.parametrize("name", USER_TEXTS)
def test_a_long_text_of_a_user_is_refused_by_name(daemon: Daemon, alice: Person, name: str) -> None:
    new = {"user_name": "long", "cert_dn": "/C=CA/CN=long", name: longest(name) + "x"}
    for person, target, form in (
        (daemon.admin, "/api/users", new),
        (daemon.admin, f"/api/users/{alice.name}", {name: new[name]}),
        (alice, f"/api/users/{alice.name}", {name: new[name]}),
    ):
        answer = person.ask("POST", target, form=form, headers={"Accept": "application/json"})
        assert (answer.status, answer.json["field"]) == (400, name)
    assert alice.ask("POST", f"/api/users/{alice.name}", form={name: longest(name)}).status == 200


def test_a_user_has_a_bounded_number_of_dns(daemon: Daemon, alice: Person) -> None:
    dns = [alice.dn, *(f"/C=CA/CN=n{n}" for n in range(MOST_DNS))]
    for many, status in ((dns, 400), (dns[:-1], 200), ([alice.dn], 200)):
        form = {"client_dns": "\n".join(many)}
        assert daemon.admin.ask("POST", f"/api/users/{alice.name}", form=form).status == status


def test_a_text_that_was_always_too_long_stays_until_it_is_changed(
    daemon: Daemon, alice: Person
) -> None:
    long = "old " * 5000
    on_server(daemon.dsn, f"UPDATE image SET description = '{long}' WHERE name = 'one'")
    assert alice.ask("GET", "/api/images/one").json["description"] == long
    whole = {"description": long, "os_type": "linux"}  # as a form sends it back
    answer = alice.ask("POST", "/api/images/one", form=whole)
    assert (answer.status, answer.json["description"]) == (200, long)
    page = alice.ask("GET", "/", headers={"Accept": "text/html"})
    assert len(page.body) < len(long)
    assert alice.ask("POST", "/api/images/one", form={"description": long + "x"}).status == 400
    assert alice.ask("POST", "/api/images/one", form={"description": "short"}).status == 200


@pytest.mark.parametrize(
    "query",
    ["q=", "owner=", "os_type=", "shared_with=", "hypervisor=", "sort=", "after=", "view="],
)
@pytest.mark.parametrize("path", ["/api/images", "/all"])
def test_what_a_query_asks_for_has_an_end(alice: Person, path: str, query: str) -> None:
    if query == "view=" and path == "/all":
        pytest.skip("a page has one view")
    if query == "shared_with=" and path == "/all":
        pytest.skip("no page is narrowed by that")
    answer = alice.ask("GET", f"{path}?{query}{'x' * 5000}", headers={"Accept": "text/html"})
    assert answer.status == 400


def test_the_name_of_a_field_has_an_end(alice: Person) -> None:
    answer = alice.ask("POST", "/api/images/one", form={"x" * 100_000: "y"})
    assert answer.status == 400
    assert len(answer.body) < 200


def test_a_long_text_of_an_original_is_taken_over_as_far_as_it_may_be() -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "user": [{"id": 1, "user_name": "bob", "email": None, "full_name": "é" * 300,
                  "expires": None, "suspended": False, "deleted": False, "certificate_id": 1,
                  "quota_id": None}],
        "certificate": [{"id": 1, "client_dn": "/C=CA/CN=bob", "issuer_dn": None}],
        "image": [{"id": 1, "uuid": "1", "expires": None, "size": 0, "name": "one",
                   "description": "d" * 5000, "os_variant": None, "os_type": "t" * 300,
                   "os_arch": None, "hypervisor": None, "deleted": False, "read_only": False,
                   "raw_uploaded": False, "unauthenticated_access": False, "checksum_id": None,
                   "owner_id": 1, "shared_id": None}],
        **{table: [] for table in (
            "quota", "groups", "permission", "checksum", "image_share", "user_group_association",
            "group_permission_association", "imageshare_user_association",
            "imageshare_group_association")},
    }  # fmt: skip
    from datetime import datetime, timezone

    made = plan(rows, {}, datetime.now(timezone.utc))
    assert made.users[0].full_name == "é" * 127
    assert made.images[0].new.description == "d" * 4096
    assert [finding.split(":")[0] for finding in made.findings] == [
        "user bob", "image bob/one", "image bob/one",
    ]  # fmt: skip


def test_a_record_cannot_be_made_with_a_long_text() -> None:
    with pytest.raises(Invalid, match="description"):
        NewImage("alice", "one", ("xen",), description="x" * 4097)
    with pytest.raises(Invalid, match="full_name"):
        NewUser("alice", ("/CN=x",), full_name="x" * 256)
