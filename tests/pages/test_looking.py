"""Looking: who I am, lists, an image's page, as people do it in a browser."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repoman.pages.steps import MAKE_FILE
from tests.credentials import end_entity, p256_key
from tests.pages.conftest import Browse
from tests.server import Daemon, Person, ask_plain

LONG = "A base system with everything that the reconstruction of the 2025 run needs. " * 3


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> Person:
    alice = daemon.newcomer("alice", full_name="Alice Almeida", email="alice@example.org")
    for number, (name, kind) in enumerate(
        (("alma9-base", "Linux"), ("babar-2012", "Linux"), ("win11-lab", "Windows")), 1
    ):
        form = {
            "name": name, "os_type": kind, "os_arch": "x86_64", "hypervisor": "kvm,xen",
            "description": LONG if number == 1 else f"For {kind}, tested",
            "unauthenticated_access": number == 1,
        }  # fmt: skip
        assert alice.ask("POST", "/api/images", form=form).status == 201
        path = f"/api/images/raw/alice/kvm/{name}"
        assert alice.ask("PUT", path, body=b"x" * 1000**number).status == 200
    alice.ask("POST", "/api/images", form={"name": "empty"})
    alice.ask("POST", "/api/images/alice/babar-2012/share/group/users")
    return alice


@pytest.fixture(scope="module")
def bob(daemon: Daemon) -> Person:
    return daemon.newcomer("bob")


def names(page: Any) -> list[str]:
    return page.locator("ul.images .name").all_inner_texts()


# -- who I am --


def test_a_user_reads_who_the_server_thinks_they_are(browse: Browse, alice: Person) -> None:
    page = browse(alice)
    page.get_by_role("link", name="alice", exact=True).click()
    text = page.locator("main").inner_text()
    for shown in ("You are alice", alice.dn, "/C=CA/O=Grid/CN=Test CA", "Alice Almeida", "users"):
        assert shown in text
    ends = alice.credential.certificate.not_valid_after_utc
    assert f"{ends:%Y-%m-%d %H:%M} UTC" in text


@pytest.mark.parametrize("who", ["nobody", "stranger", "suspended"])
def test_who_is_not_known_reads_why_and_what_to_do(
    browse: Browse, daemon: Daemon, who: str
) -> None:
    if who == "suspended":
        person = daemon.newcomer()
        daemon.admin.ask("POST", f"/api/users/{person.name}", form={"suspended": "true"})
        reason = f"User {person.name} is suspended."
    elif who == "stranger":
        person = daemon.stranger("Eve Everywhere")
        reason = "Nobody is registered here as /C=CA/O=Grid/CN=Eve Everywhere"
    else:
        person, reason = daemon.nobody, "You showed no certificate"
    page = browse(person)
    assert reason in page.get_by_role("status").inner_text()
    page.get_by_role("link", name="How to show a certificate").click()
    assert reason in page.get_by_role("status").inner_text()
    assert "openssl pkcs12" in page.locator("main").inner_text()
    assert page.goto("/me").status == 403
    assert reason in page.get_by_role("alert").inner_text()


def test_the_reason_of_a_refused_certificate_is_shown(browse: Browse, daemon: Daemon) -> None:
    # TLS is content with it, but not the signing policy of its authority.
    user = end_entity("/C=CA/O=Elsewhere/CN=Una", daemon.grid.ca, key=p256_key("Una"))
    page = browse(Person(daemon, credential=user))
    text = page.get_by_role("status").inner_text()
    assert "signing policy" in text
    assert "/C=CA/O=Elsewhere/CN=Una" in text


def test_the_file_that_the_help_makes_lets_its_owner_in(
    browse: Browse, daemon: Daemon, alice: Person, tmp_path: Path
) -> None:
    (tmp_path / ".globus").mkdir()
    alice.credential.write_pair(tmp_path / ".globus/usercert.pem", tmp_path / ".globus/userkey.pem")
    assert browse(daemon.nobody, "/certificate").locator("pre").inner_text() == MAKE_FILE
    subprocess.run(
        ["sh", "-c", f"HOME={tmp_path} && {MAKE_FILE} -passout pass:secret"],
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    shown = [{"origin": daemon.url, "pfxPath": str(tmp_path / "me.p12"), "passphrase": "secret"}]
    page = browse(alice, "/me", certificates=shown)
    assert "You are alice" in page.locator("main").inner_text()


# -- lists --


def test_people_see_their_own_the_shared_and_the_public_images(
    browse: Browse, daemon: Daemon, alice: Person, bob: Person
) -> None:
    page = browse(alice)
    assert names(page) == ["alma9-base", "babar-2012", "empty", "win11-lab"]
    page = browse(bob)
    assert "You have no images yet." in page.locator("main").inner_text()
    page.get_by_role("link", name="Shared").click()
    assert names(page) == ["alice/babar-2012"]
    page.get_by_role("link", name="Public").click()
    assert "alice/alma9-base" in names(page)
    assert not {"alice/babar-2012", "alice/win11-lab"} & {*names(page)}
    page = browse(daemon.nobody)
    assert "alice/alma9-base" in names(page)
    assert not {"alice/babar-2012", "alice/win11-lab"} & {*names(page)}
    page = browse(daemon.admin)
    page.get_by_role("link", name="All", exact=True).click()
    page.get_by_text("Filters").click()
    page.get_by_label("Owner").fill("alice")
    page.get_by_role("button", name="Search").click()
    assert names(page) == [f"alice/{n}" for n in ("alma9-base", "babar-2012", "empty", "win11-lab")]


def test_lists_are_searched_filtered_and_ordered(browse: Browse, alice: Person) -> None:
    page = browse(alice, javascript=False)
    page.get_by_label("Search").fill("TESTED")
    page.get_by_label("Order").select_option("Largest")
    page.get_by_role("button", name="Search").click()
    assert names(page) == ["win11-lab", "babar-2012"]
    page.get_by_text("Filters").click()
    page.get_by_label("System").fill("Linux")
    page.get_by_label("Hypervisor").select_option("kvm")
    page.get_by_role("button", name="Search").click()
    assert names(page) == ["babar-2012"]
    assert page.get_by_label("Order").input_value() == "-size"
    page.get_by_label("System").fill("Plan 9")
    page.get_by_role("button", name="Search").click()
    assert "No image is like that." in page.locator("main").inner_text()
    page.get_by_role("link", name="Show all again").click()
    assert len(names(page)) == 4


def test_long_lists_come_page_by_page(browse: Browse, daemon: Daemon) -> None:
    carol = daemon.newcomer("carol")
    expected = [f"image-{n:03}" for n in range(120)]
    for name in expected:
        assert carol.ask("POST", "/api/images", form={"name": name}).status == 201
    page = browse(carol, "/?q=image")
    seen = names(page)
    while (following := page.get_by_role("link", name="Next page")).count():
        following.click()
        seen += names(page)
    assert seen == expected
    page.get_by_role("link", name="First page").click()
    assert names(page) == expected[:50]


# -- an image --


def test_an_images_page_has_all_that_is_known_of_it(browse: Browse, alice: Person) -> None:
    page = browse(alice)
    page.get_by_role("link", name="babar-2012").click()
    record = alice.ask("GET", "/api/images/alice/babar-2012?view=full").json
    text = page.locator("main").inner_text()
    for shown in (
        "alice/babar-2012", "For Linux, tested", "x86_64", "kvm, xen", "977 KiB", "no file yet",
        record["files"]["kvm"]["checksum"]["value"], record["uuid"], "group users",
    ):  # fmt: skip
        assert shown in text


def test_a_digest_is_copied_and_a_file_downloaded(
    browse: Browse, alice: Person, tmp_path: Path
) -> None:
    page = browse(alice, "/image/alice/babar-2012")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy SHA-256 of kvm").click()
    digest = hashlib.sha256(b"x" * 10**6).hexdigest()
    assert page.evaluate("navigator.clipboard.readText()") == digest
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download for kvm").click()
    assert waiting.value.suggested_filename == "babar-2012"
    assert Path(waiting.value.path()).read_bytes() == b"x" * 10**6


def test_the_ready_lines_work_as_they_stand(
    browse: Browse, daemon: Daemon, alice: Person, tmp_path: Path
) -> None:
    page = browse(alice, "/image/alice/alma9-base", javascript=False)
    lines = [t for t in page.locator(".line code").all_inner_texts() if " " in t]
    assert [line.split()[0] for line in lines] == ["repoman", "curl", "wget"]
    bin_directory = str(Path(sys.executable).parent)
    for line in lines:
        line = line.replace("/etc/grid-security/certificates", str(daemon.ca_directory))
        environment = {
            **os.environ, "X509_USER_PROXY": str(alice.proxy), "HOME": str(tmp_path),
            "X509_CERT_DIR": str(daemon.ca_directory),
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
        }  # fmt: skip
        subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, check=True, timeout=60)
        assert (tmp_path / "alma9-base").read_bytes() == b"x" * 1000
        (tmp_path / "alma9-base").unlink()


def test_others_see_of_a_public_image_what_everybody_may(
    browse: Browse, daemon: Daemon, bob: Person
) -> None:
    for person in (bob, daemon.nobody):
        page = browse(person, "/image/alice/alma9-base")
        text = page.locator("main").inner_text()
        assert "reconstruction" in text
        assert "Who may see it" not in text
        assert page.get_by_role("link", name="Upload").count() == 0
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Download for kvm").click()
        assert Path(waiting.value.path()).read_bytes() == b"x" * 1000


def test_pages_of_what_is_public_lead_to_the_directories_for_programs(
    browse: Browse, daemon: Daemon, alice: Person, bob: Person
) -> None:
    for person, path in ((daemon.nobody, "/"), (bob, "/public")):
        page = browse(person, path)
        page.get_by_role("link", name="For programs").click()
        page.get_by_role("link", name="alice/").click()
        assert page.get_by_role("link", name="SHA256SUMS").count() == 1
    page = browse(bob, "/image/alice/alma9-base")
    page.get_by_role("link", name="All that alice publishes").click()
    assert page.get_by_role("link", name="alma9-base.sha256").count() == 1
    for path in ("/image/alice/babar-2012", "/image/alice/empty"):  # nothing to be had there
        assert "All that alice publishes" not in alice.ask("GET", path).text


def test_whom_a_public_image_is_shared_with_cannot_be_asked_for(
    daemon: Daemon, alice: Person, bob: Person
) -> None:
    alice.ask("POST", "/api/images", form={"name": "open", "unauthenticated_access": "true"})
    alice.ask("POST", f"/api/images/open/share/user/{bob.name}")
    for person, path in ((daemon.nobody, "/"), (daemon.nobody, "/public"), (bob, "/public")):
        lists = {
            "/image/alice/open" in person.ask("GET", f"{path}?owner=alice&shared_with={name}").text
            for name in (bob.name, "nobody-at-all")
        }
        assert lists == {True}
    alice.ask("DELETE", "/api/images/open")


def test_what_may_not_be_seen_is_missing_and_nobody_learns_nothing(
    daemon: Daemon, alice: Person, bob: Person
) -> None:
    there, absent = "/image/alice/win11-lab", "/image/alice/never"
    assert alice.ask("GET", there).status == 200
    one, other = bob.ask("GET", there), bob.ask("GET", absent)
    assert (one.status, other.status) == (404, 404)
    assert one.text.replace("win11-lab", "never") == other.text
    one, other = daemon.nobody.ask("GET", there), daemon.nobody.ask("GET", absent)
    assert (one.status, one.text) == (403, other.text)
    # What is public has a record for everybody, and is in the lists of those whom it concerns.
    assert bob.ask("GET", "/api/images/alice/alma9-base").status == 200
    assert bob.ask("GET", "/api/images/alice/win11-lab").status == 404
    assert bob.ask("GET", "/api/images").json != []
    assert not any("alma9" in url for url in bob.ask("GET", "/api/images").json)


def test_the_plain_endpoint_has_no_pages(daemon: Daemon) -> None:
    for path in ("/", "/public", "/assets/style.css", "/image/alice/alma9-base"):
        answer = ask_plain(daemon.plain + path)
        assert (answer.status, answer.headers["Content-Type"][:10]) == (403, "text/plain")


# -- what a browser is told --


def test_a_page_that_takes_no_forms_says_what_it_takes(alice: Person) -> None:
    answer = alice.ask("POST", "/shared", form={})
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_answers_forbid_all_that_pages_do_not_need(daemon: Daemon, alice: Person) -> None:
    for path in ("/", "/me", "/image/alice/alma9-base", "/nothing", "/assets/style.css"):
        headers = alice.ask("GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert not re.search("unsafe|https?:|[*]", policy)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
    for path in ("/api/whoami", "/api/images/raw/alice/kvm/alma9-base", "/api/nothing"):
        headers = alice.ask("GET", path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    headers = alice.ask("GET", "/api/images/raw/alice/kvm/alma9-base").headers
    assert headers["Content-Disposition"] == 'attachment; filename="alma9-base"'


def test_pages_have_neither_scripts_nor_styles_in_them(alice: Person, daemon: Daemon) -> None:
    for path in ("/", "/me", "/image/alice/alma9-base", "/certificate", "/public?owner=alice"):
        html = alice.ask("GET", path).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", html)
