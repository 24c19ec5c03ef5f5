"""Every change has a row that says who, from where and what; no row can be changed unseen."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve, field, frozen

from repoman.audit import Change, End, Entry, Origin, chained, first_fault
from repoman.database.audit import AuditRecords
from repoman.errors import AlreadyExists
from repoman.policy import PROTECTIONS, RULES
from tests.postgres import on_server
from tests.records import Records, at_once
from tests.repository.conftest import records as records
from tests.repository.conftest import template as template
from tests.server import ROOT, Answer, Daemon, Person
from tests.test_operator import operate

NOW = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=timezone.utc)
PATHS = json.loads(files("repoman").joinpath("openapi.json").read_text())["paths"]
CHANGING = {f"{m.upper()} {path}" for path, ms in PATHS.items() for m in ms if m != "get"}


@frozen
class Step:
    """A request that changes something, and the row that it leaves."""

    route: str
    path: str
    action: str
    subject: str
    form: Mapping[str, Any] | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(factory=dict)


PART = {"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1"}
NEW = {"Upload-Complete": "?0", "Upload-Length": "3"}
SHARES = [
    Step(f"{method} /api/images{form}/share/{kind}/{{name}}",
         f"/api/images{path}/share/{kind}/{name}", action, "impeyr/i")
    for form, path in (("/{image}", "/i"), ("/{user}/{image}", "/impeyr/i"))
    for kind, name in (("user", "walker"), ("group", "walkers"))
    for method, action in (("POST", "image.share"), ("DELETE", "image.unshare"))
]  # fmt: skip
WALK = [
    Step("POST /api/users", "/api/users", "user.create", "walker",
         {"user_name": "walker", "cert_dn": "/C=CA/CN=Walker"}),
    Step("POST /api/users/{user}", "/api/users/walker", "user.modify", "walker",
         {"email": "w@x.y"}),
    Step("POST /api/groups", "/api/groups", "group.create", "w", {"name": "w"}),
    Step("POST /api/groups/{group}", "/api/groups/w", "group.modify", "w", {"name": "walkers"}),
    Step("POST /api/groups/{group}/users/{user}", "/api/groups/walkers/users/impeyr",
         "group.add_member", "walkers"),
    Step("POST /api/groups/{group}/permissions/{permission}",
         "/api/groups/walkers/permissions/image_delete", "group.permit", "walkers"),
    Step("DELETE /api/groups/{group}/permissions/{permission}",
         "/api/groups/walkers/permissions/image_delete", "group.forbid", "walkers"),
    Step("POST /api/images", "/api/images", "image.create", "impeyr/i", {"name": "i"}),
    Step("POST /api/images/{image}", "/api/images/i", "image.modify", "impeyr/i", {"os_type": "x"}),
    Step("POST /api/images/{user}/{image}", "/api/images/impeyr/i", "image.modify", "impeyr/i",
         {"os_arch": "x"}),
    *SHARES,
    Step("PUT /api/images/raw/{name}", "/api/images/raw/i", "image.store", "impeyr/i", body=b"1"),
    Step("PUT /api/images/raw/{word}/{name}", "/api/images/raw/xen/i", "image.store", "impeyr/i",
         body=b"22"),
    Step("PUT /api/images/raw/{owner}/{hypervisor}/{name}", "/api/images/raw/impeyr/xen/i",
         "image.store", "impeyr/i", body=b"333"),
    Step("POST /api/images/raw/{name}", "/api/images/raw/i", "upload.begin", "impeyr/i",
         headers=NEW),
    Step("DELETE /api/uploads/{upload_id}", "UPLOAD", "upload.discard", "impeyr/i"),
    Step("POST /api/images/raw/{word}/{name}", "/api/images/raw/xen/i", "upload.begin", "impeyr/i",
         headers=NEW),
    Step("POST /api/images/raw/{owner}/{hypervisor}/{name}", "/api/images/raw/impeyr/xen/i",
         "upload.begin", "impeyr/i", headers=NEW),
    Step("PATCH /api/uploads/{upload_id}", "UPLOAD", "image.store", "impeyr/i", body=b"abc",
         headers=PART),
    Step("POST /api/offers", "/api/offers", "image.offer", "impeyr/i",
         {"name": "i", "recipient": "walker"}),
    Step("DELETE /api/offers/{user}/{image}", "/api/offers/impeyr/i", "image.withdraw", "impeyr/i"),
    Step("POST /api/offers/{user}/{image}", "/api/offers/guest/k", "image.accept", "guest/k"),
    Step("DELETE /api/images/{image}", "/api/images/i", "image.delete", "impeyr/i"),
    Step("DELETE /api/images/{user}/{image}", "/api/images/impeyr/j", "image.delete", "impeyr/j"),
    Step("DELETE /api/groups/{group}/users/{user}", "/api/groups/walkers/users/impeyr",
         "group.remove_member", "walkers"),
    Step("DELETE /api/groups/{group}", "/api/groups/walkers", "group.delete", "walkers"),
    Step("DELETE /api/users/{user}", "/api/users/walker", "user.delete", "walker"),
]  # fmt: skip


def rows(daemon: Daemon, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.admin.ask("GET", f"/api/audit?{query}").json
    return found


def row_of(daemon: Daemon, answer: Answer) -> dict[str, Any]:
    """The one row of a request."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = [r for r in rows(daemon) if r["request_id"] == answer.headers["X-Request-Id"]]
        if found:
            [row] = found
            return row
        time.sleep(0.05)  # a refusal is noted after it was answered
    raise AssertionError(f"no row for {answer}")


def offer_to_the_walker(daemon: Daemon) -> None:
    """Something for who walks to accept."""
    guest = daemon.newcomer("guest")
    assert guest.ask("POST", "/api/images", form={"name": "k"}).status == 201
    answer = guest.ask("POST", "/api/images/k", form={"owner": daemon.admin.name})
    assert answer.json["owner_user_name"] == "guest"


def test_every_changing_route_leaves_a_row_of_who_and_where(daemon: Daemon) -> None:
    assert {step.route for step in WALK} == CHANGING
    daemon.admin.ask("POST", "/api/images", form={"name": "j"})
    offer_to_the_walker(daemon)
    place = ""
    for step in WALK:
        method, path = step.route.split()[0], step.path.replace("UPLOAD", place)
        answer = daemon.admin.ask(
            method, path, form=step.form, body=step.body, headers=step.headers
        )  # fmt: skip
        assert answer.status in (200, 201, 204), (step, answer)
        place = answer.headers.get("Location", place)
        row = row_of(daemon, answer)
        assert (row["action"], row["subject"]) == (step.action, step.subject), step
        assert (row["user"], row["dn"]) == (daemon.admin.name, daemon.admin.dn)
        assert (row["address"], row["outcome"]) == ("127.0.0.1", "done")


def test_what_changes_nothing_leaves_no_row(daemon: Daemon) -> None:
    daemon.admin.ask("POST", "/api/groups", form={"name": "idle", "users": daemon.admin.name})
    before = rows(daemon, "limit=1")
    daemon.admin.ask("POST", f"/api/groups/idle/users/{daemon.admin.name}")
    daemon.admin.ask("GET", "/api/groups")
    assert rows(daemon, "limit=1") == before


@pytest.fixture
def alice(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    person.ask("GET", "/api/whoami")
    return person


def test_a_refused_change_of_a_known_user_is_a_row(daemon: Daemon, alice: Person) -> None:
    row = row_of(daemon, alice.ask("DELETE", "/api/groups/users"))
    assert (row["user"], row["outcome"], row["action"]) == (alice.name, "refused", "group.delete")
    assert row["subject"] == "groups/users"
    assert row["detail"]["error"] == "NotPermitted"
    hidden = row_of(daemon, alice.ask("PUT", "/api/images/raw/impeyr/xen/hidden", body=b"x"))
    assert (hidden["outcome"], hidden["detail"]["error"]) == ("refused", "Missing")


def test_strangers_and_readers_leave_no_rows(daemon: Daemon, alice: Person) -> None:
    before = rows(daemon, "limit=1")
    daemon.nobody.ask("DELETE", "/api/groups/users")
    daemon.stranger().ask("POST", "/api/users", form={"user_name": "x"})
    assert alice.ask("GET", "/api/users/none").status == 404
    time.sleep(0.3)
    assert rows(daemon, "limit=1") == before


def test_only_administrators_read_it(daemon: Daemon, alice: Person) -> None:
    assert alice.ask("GET", "/api/audit").status == 403
    assert daemon.nobody.ask("GET", "/api/audit").status == 403


def test_a_first_login_and_what_the_daemon_does_have_rows(daemon: Daemon, alice: Person) -> None:
    [bound] = rows(daemon, f"action=user.bind&subject={alice.name}")
    assert (bound["user"], bound["dn"]) == (alice.name, alice.dn)
    assert bound["detail"]["issuer_dn"] == "/C=CA/O=Grid/CN=Test CA"
    [first] = rows(daemon, f"action=user.create&subject={daemon.admin.name}")
    assert first["user"] == "(repoman)"


@pytest.mark.directory_store
def test_damage_is_not_the_doing_of_who_finds_it(daemon: Daemon, alice: Person) -> None:
    alice.ask("POST", "/api/images", form={"name": "rots"})
    alice.ask("PUT", "/api/images/raw/rots", body=b"good")
    stored = set((daemon.directory / "state/blobs/data").glob("*/*"))
    alice.ask("PUT", "/api/images/raw/rots", body=b"also good")
    [blob] = set((daemon.directory / "state/blobs/data").glob("*/*")) - stored
    time.sleep(0.1)
    blob.write_bytes(b"not so ok")
    assert alice.ask("GET", "/api/images/raw/rots").status == 500
    [row] = rows(daemon, f"action=bytes.damaged&subject={blob.name}")
    assert row["user"] == "(repoman)"


def test_it_is_narrowed_and_read_page_by_page(daemon: Daemon, alice: Person) -> None:
    for number in range(5):
        alice.ask("POST", "/api/images", form={"name": f"page{number}"})
    seen, target = [], f"/api/audit?user={alice.name}&action=image.create&limit=2"
    while target:
        answer = daemon.admin.ask("GET", target)
        seen += [row["subject"].partition("/")[2] for row in answer.json]
        link = answer.headers.get("Link", "")
        target = link.partition("<")[2].partition(">")[0]
    assert seen == ["page4", "page3", "page2", "page1", "page0"]
    assert rows(daemon, f"subject={alice.name}/page3&outcome=done")
    assert rows(daemon, f"user={alice.name}&until=2000-01-01") == []
    assert rows(daemon, f"user={alice.name}&since=2000-01-01&limit=1")
    for wrong in ("outcome=x", "since=x", "after=x", "limit=0"):
        assert daemon.admin.ask("GET", f"/api/audit?{wrong}").status == 400


# -- the chain --


def entries(count: int) -> list[Entry]:
    made, before = [], ""
    for number in range(1, count + 1):
        entry = Entry(
            number, NOW + timedelta(seconds=number), Origin("a", "/CN=a"), Change("x.y", "z")
        )
        before = chained(before, entry)
        made.append(evolve(entry, digest=before))
    return made


def test_the_digest_is_as_documented() -> None:
    [entry] = entries(1)
    text = (
        '["",1,"2026-11-24T12:00:01.000005+00:00","a","/CN=a","","","x.y","z","done",'
        '{"a":["b"],"c":null}]'
    )
    entry = evolve(entry, change=Change("x.y", "z", {"c": None, "a": ("b",)}))
    assert chained("", entry) == hashlib.sha256(text.encode()).hexdigest()


def test_each_way_to_bend_a_chain_is_found() -> None:
    whole = entries(5)
    assert first_fault(End(), whole) == ""
    assert first_fault(End(2, whole[1].digest), whole[2:]) == ""
    assert first_fault(End(), whole[:2] + whole[3:]) == "row 3 is missing"
    assert first_fault(End(), whole[1:]) == "row 1 is missing"
    bent = evolve(whole[2], change=Change("x.y", "other"))
    assert "row 3" in first_fault(End(), [*whole[:2], bent, *whole[3:]])
    again = evolve(bent, digest=chained(whole[1].digest, bent))
    assert "row 4" in first_fault(End(), [*whole[:2], again, *whole[3:]])


@pytest_twisted.ensureDeferred
async def test_changes_at_once_make_one_chain(records: Records) -> None:
    await at_once(*(records.user(f"user{n}") for n in range(20)))
    audit = AuditRecords(records.pool)
    assert await audit.fault() == ""
    assert (await audit.ends())[1].number == 20


@pytest_twisted.ensureDeferred
async def test_a_change_that_fails_leaves_no_row(records: Records) -> None:
    await records.user("a")
    with pytest.raises(AlreadyExists):
        await records.user("a")
    assert (await AuditRecords(records.pool).ends())[1].number == 1


@pytest_twisted.ensureDeferred
async def test_forgotten_rows_leave_the_end_that_the_chain_goes_on_from(records: Records) -> None:
    for name in "abc":
        await records.user(name)
    audit = AuditRecords(records.pool)
    assert await audit.prune(3600) == 0
    third = await audit.digest_of(3)
    assert await audit.prune(-1) == 3
    assert await audit.ends() == (End(3, third), End(4, await audit.digest_of(4)))
    assert await audit.fault() == ""
    await records.user("d")
    assert await audit.fault() == ""
    await records.run("DELETE FROM audit WHERE number = 4")
    assert await audit.fault() == "row 4 is missing"


BENDS = {
    "UPDATE audit SET user_name = 'somebody' WHERE number = 2": "row 2, or",
    "UPDATE audit SET detail = '{}' WHERE number = 2": "row 2, or",
    "DELETE FROM audit WHERE number = 2": "row 2 is missing",
    "DELETE FROM audit WHERE number = (SELECT max(number) FROM audit)": "the newest, are missing",
    "TRUNCATE audit": "the newest, are missing",
}


def test_the_command_verifies_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with daemon.running():
        daemon.newcomer()
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        good = operate("verify-audit", "-c", daemon.config)
        assert (good.returncode, good.stderr) == (0, ""), good
        known = good.stdout.split()[-1]
        daemon.admin.ask("DELETE", "/api/images/one")
        same = operate("verify-audit", "-c", daemon.config, "--known", known)
        assert same.returncode == 0, same
        other = f"{known.partition(':')[0]}:{'0' * 64}"
        rewritten = operate("verify-audit", "-c", daemon.config, "--known", other)
        assert "another one than was noted" in rewritten.stderr
        on_server(daemon.dsn, "CREATE TABLE kept AS SELECT * FROM audit")
        for bend, told in BENDS.items():
            on_server(daemon.dsn, bend)
            broken = operate("verify-audit", "-c", daemon.config)
            assert broken.returncode == 1
            assert told in broken.stderr, bend
            on_server(daemon.dsn, "DELETE FROM audit; INSERT INTO audit SELECT * FROM kept")
        assert operate("verify-audit", "-c", daemon.config).returncode == 0


def test_rows_older_than_configured_are_forgotten(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, log={"audit_kept": "1s"})
    with daemon.running():
        daemon.newcomer()
    time.sleep(1)
    with daemon.running():
        end = time.monotonic() + 20
        while any(row["action"] == "user.create" for row in rows(daemon)):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert rows(daemon)[-1]["action"] in ("audit.prune", "user.bind")
        assert operate("verify-audit", "-c", daemon.config).returncode == 0


def test_every_action_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "repoman").rglob("*.py"))
    made = set(
        re.findall(r'"((?:user|group|image|upload|bytes|audit|repository)\.[a-z_]+)"', source)
    )
    section = text.partition("## The audit")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([a-z]+\.[a-z_]+)`", section))
    assert made - set(RULES) - set(PROTECTIONS) <= told
    assert told <= made | set(RULES)
