"""Administrators look after users and groups, and see what the server does."""

from __future__ import annotations

import http.client
import time
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repoman.history import SPAN_SECONDS, SPANS, History
from tests.pages.conftest import Browse
from tests.server import Daemon, Person

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)

# -- users --


def test_a_user_is_made_changed_suspended_and_deleted(browse: Browse, daemon: Daemon) -> None:
    page = browse(daemon.admin, javascript=False)
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name="New user").click()
    page.get_by_label("Name", exact=True).fill("noor")
    page.get_by_label("Distinguished name").fill("/C=CA/O=Grid/CN=Noor Haddad")
    page.get_by_label("Full name").fill("Noor Haddad")
    page.get_by_label("Quota").fill("3 lightyears")
    page.get_by_role("button", name="Create").click()
    assert "is not a size" in page.get_by_role("alert").inner_text()
    page.go_back()
    page.get_by_label("Quota").fill("2 GiB")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/user/noor")
    assert "0 bytes of 2 GiB" in page.locator("main").inner_text()
    noor = daemon.person("Noor Haddad", "noor")
    assert noor.ask("GET", "/api/whoami").json["user_name"] == "noor"

    page.get_by_label("Full name").fill("Noor van Dijk")
    page.get_by_label("Quota").fill("")
    page.get_by_label("Distinguished names").fill("/C=CA/O=Grid/CN=Noor Haddad\n/CN=N 2\n")
    page.get_by_role("button", name="Save").click()
    record = daemon.admin.ask("GET", "/api/users/noor?view=full").json
    assert (record["full_name"], record["quota"]) == ("Noor van Dijk", None)
    assert record["client_dns"] == ["/C=CA/O=Grid/CN=Noor Haddad", "/CN=N 2"]

    page.get_by_role("button", name="Suspend").click()
    page.locator(".badge", has_text="suspended").wait_for()
    assert "suspended" in noor.ask("GET", "/").text
    page.get_by_role("button", name="End the suspension").click()
    assert noor.ask("GET", "/api/whoami").status == 200

    page.get_by_label("Type noor").fill("noor")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/users")
    assert daemon.admin.ask("GET", "/api/users/noor").status == 404


def test_users_are_found_by_part_of_a_name(browse: Browse, daemon: Daemon) -> None:
    person = daemon.newcomer(full_name="Zsófia Ünnepi")
    page = browse(daemon.admin, "/users")
    page.get_by_label("Search").fill("FIA Ü")
    page.get_by_role("button", name="Search").click()
    assert page.locator("ul.images .name").all_inner_texts() == [person.name]


def test_long_lists_of_users_come_page_by_page(browse: Browse, daemon: Daemon) -> None:
    expected = [f"crowd-{n:03}" for n in range(130)]
    for name in expected:
        form = {"user_name": name, "cert_dn": f"/CN={name}"}
        assert daemon.admin.ask("POST", "/api/users", form=form).status == 200
    page = browse(daemon.admin, "/users?q=crowd-")
    seen = page.locator("ul.images .name").all_inner_texts()
    page.get_by_role("link", name="Next page").click()
    seen += page.locator("ul.images .name").all_inner_texts()
    assert seen == expected


def test_the_last_administrator_stays(browse: Browse, daemon: Daemon) -> None:
    page = browse(daemon.admin, f"/user/{daemon.admin.name or 'impeyr'}")
    assert page.get_by_role("button", name="Delete").count() == 0
    page.get_by_role("button", name="Suspend").click()
    assert "last administrator" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Go back").click()
    assert page.url.endswith("/user/impeyr")


# -- groups --


def test_a_group_is_made_filled_renamed_and_deleted(browse: Browse, daemon: Daemon) -> None:
    person = daemon.newcomer()
    page = browse(daemon.admin, "/groups", javascript=False)
    page.get_by_label("Name").fill("optics")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/group/optics")
    page.get_by_label("New member").fill(person.name)
    page.get_by_role("button", name="Add").click()
    page.get_by_label("New permission").select_option("image_delete_group")
    page.get_by_role("button", name="Permit").click()
    group = daemon.admin.ask("GET", "/api/groups/optics").json
    assert group["users"] == [f"{daemon.url}/api/users/{person.name}"]
    assert group["permissions"] == ["image_delete_group"]
    page.get_by_role("button", name=f"Take {person.name} out").click()
    page.get_by_role("button", name="Take image_delete_group out").click()
    group = daemon.admin.ask("GET", "/api/groups/optics").json
    assert (group["users"], group["permissions"]) == ([], [])
    page.get_by_label("New name").fill("optics-2")
    page.get_by_role("button", name="Rename").click()
    page.wait_for_url("**/group/optics-2")
    page.get_by_label("Type optics-2").fill("optics-2")
    page.get_by_role("button", name="Delete").click()
    assert daemon.admin.ask("GET", "/api/groups/optics-2").status == 404


def test_a_very_large_group_is_named_in_part(browse: Browse, daemon: Daemon) -> None:
    names = [f"mass-{n:03}" for n in range(203)]
    for name in names:
        form = {"user_name": name, "cert_dn": f"/CN={name}"}
        assert daemon.admin.ask("POST", "/api/users", form=form).status == 200
    form = {"name": "mass", "users": ",".join(names)}
    assert daemon.admin.ask("POST", "/api/groups", form=form).status == 200
    page = browse(daemon.admin, "/group/mass")
    assert "... and 3 more." in page.locator("main").inner_text()
    page.get_by_label("Take out a member").fill("mass-202")
    page.get_by_role("button", name="Take out", exact=True).click()
    page.get_by_text("... and 2 more.").wait_for()
    assert len(daemon.admin.ask("GET", "/api/groups/mass").json["users"]) == 202


def test_what_is_protected_has_no_form(browse: Browse, daemon: Daemon) -> None:
    page = browse(daemon.admin, "/group/admins")
    assert page.get_by_label("New permission").count() == 0
    assert page.get_by_role("button", name="Delete").count() == 0


# -- who else --


@pytest.fixture(scope="module")
def anyone(daemon: Daemon) -> Person:
    return daemon.newcomer()


@pytest.mark.parametrize(
    "path", ["/activity", "/activity/transfers", "/activity/audit", "/users/new"]
)
def test_others_do_not_get_there(daemon: Daemon, anyone: Person, path: str) -> None:
    assert anyone.ask("GET", path).status == 403
    assert daemon.nobody.ask("GET", path).status == 403


def test_others_see_users_without_what_is_private(daemon: Daemon, anyone: Person) -> None:
    other = daemon.newcomer(email="private@example.org", quota=12345)
    hidden = ("private@example.org", other.dn, "12.1 KiB", 'method="post"')
    for path in (f"/users?q={other.name}", f"/user/{other.name}"):
        answer = anyone.ask("GET", path)
        assert answer.status == 200
        assert other.name in answer.text
        assert [text for text in hidden if text in answer.text] == []


# -- what the server does --


def slow_upload(person: Person, size: int) -> http.client.HTTPSConnection:
    """Begin an upload, and keep it waiting."""
    person.ask("POST", "/api/images", form={"name": "slow"})
    connection = person.connection()
    connection.putrequest("PUT", f"/api/images/raw/{person.name}/slow")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    connection.send(b"x" * 100_000)
    return connection


def test_running_transfers_come_and_go_by_themselves(browse: Browse, daemon: Daemon) -> None:
    person = daemon.newcomer()
    page = browse(daemon.admin, "/activity")
    assert page.get_by_text("Nothing is on its way.").is_visible()
    connection = slow_upload(person, 1_000_000)
    row = page.locator("#transfers tr", has_text=person.name)
    row.wait_for()
    row.get_by_text("97.7 KiB of 977 KiB").wait_for()
    assert f"upload {person.name}/slow" in row.inner_text()
    connection.send(b"x" * 900_000)
    assert connection.getresponse().status == 200
    row.wait_for(state="detached")
    assert page.get_by_text("Nothing is on its way.").is_visible()
    connection.close()


def test_they_are_on_the_page_without_javascript_too(browse: Browse, daemon: Daemon) -> None:
    person = daemon.newcomer()
    connection = slow_upload(person, 1_000_000)
    page = browse(daemon.admin, "/activity", javascript=False)
    assert person.name in page.locator("#transfers").inner_text()
    connection.close()


def test_a_stream_does_not_keep_the_daemon_from_stopping(browse: Browse, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with daemon.running():
        page = browse(daemon.admin, "/activity", expected=None)
        page.wait_for_timeout(500)
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 10


def test_room_traffic_refusals_and_the_audit_are_shown(browse: Browse, daemon: Daemon) -> None:
    person, stranger = daemon.newcomer(), daemon.stranger("Walter Unknown")
    person.ask("POST", "/api/images", form={"name": "big"})
    body = b"x" * 5 * 2**20
    assert person.ask("PUT", f"/api/images/raw/{person.name}/big", body=body).status == 200
    assert stranger.ask("GET", "/api/images").status == 403
    page = browse(daemon.admin, "/activity")
    rooms = page.get_by_role("table", name="The owners with most bytes")
    assert "MiB" in rooms.get_by_role("row").first.inner_text()
    sizes = [float(r.get_attribute("width")) for r in rooms.locator("rect").all()]
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    for title in ("Requests", "Bytes in", "Bytes out", "Longest stall"):
        plot = page.get_by_role("img", name=f"{title}, over the last day: most")
        bars = plot.locator(".bar").get_attribute("d")
        assert "v-88h" in bars
        assert "M429 90v" in bars
    refused = page.get_by_role("region", name="Recent refusals").inner_text()
    assert "/C=CA/O=Grid/CN=Walter Unknown" in refused
    assert "Nobody is registered here as" in refused
    page.get_by_role("link", name="the audit").click()
    page.get_by_label("User").fill(person.name)
    page.get_by_label("Outcome").select_option("done")
    page.get_by_role("button", name="Search").click()
    rows = page.get_by_role("row").all_inner_texts()
    assert any("image.store" in row and "size: 5242880" in row for row in rows)
    assert all(person.name in row for row in rows[1:])


def test_a_long_audit_comes_page_by_page(browse: Browse, daemon: Daemon) -> None:
    person = daemon.newcomer()
    for number in range(12):
        person.ask("POST", "/api/images", form={"name": f"n{number}"})
    page = browse(daemon.admin, f"/activity/audit?user={person.name}&limit=10", javascript=False)
    assert page.get_by_role("row").count() == 11
    page.get_by_role("link", name="Older").click()
    assert page.get_by_role("row").count() >= 3
    assert "n0" in page.get_by_role("row").nth(2).inner_text() + page.locator("main").inner_text()


# -- the history --


def request(code: int = 200, received: int = 0, sent: int = 0, **more: Any) -> Any:
    return SimpleNamespace(
        code=code, sentLength=sent, body=SimpleNamespace(count=received), peer=None, client=None,
        method=b"GET", path=b"/", **more,
    )  # fmt: skip


def test_a_day_has_its_spans_and_no_more() -> None:
    seconds = 1e6
    history = History(lambda: seconds, lambda: NOW)
    history.count(request(received=1, sent=2))
    seconds += SPAN_SECONDS
    history.count(request(received=10))
    history.count(request(received=10))
    history.stalled(0.5)
    history.stalled(0.25)
    spans = history.spans()
    assert len(spans) == SPANS
    assert [(s.requests, s.received, s.sent, s.stall) for s in spans[-3:]] == [
        (0, 0, 0, 0.0), (1, 1, 2, 0.0), (2, 20, 0, 0.5),
    ]  # fmt: skip
    seconds += SPAN_SECONDS * (SPANS - 1)
    assert [s.requests for s in history.spans()] == [2] + [0] * (SPANS - 1)
    seconds += SPAN_SECONDS * 10 * SPANS
    assert sum(s.requests for s in history.spans()) == 0


def test_only_refusals_are_kept_and_only_the_latest() -> None:
    history = History(lambda: 0.0, lambda: NOW)
    for number in range(200):
        history.count(request(code=200))
        history.count(request(code=403, refusal=f"reason {number}"))
    assert [r.reason for r in history.refusals()][:2] == ["reason 199", "reason 198"]
    assert len(history.refusals()) == 50
