"""Uploading from the browser: with pauses, lost lines, reloads and other files."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pages.conftest import Browse
from tests.server import Daemon, Person

SIZE = 24 * 2**20


@pytest.fixture
def person(daemon: Daemon) -> Person:
    person = daemon.newcomer()
    form = {"name": "disk", "hypervisor": "kvm,xen"}
    assert person.ask("POST", "/api/images", form=form).status == 201
    return person


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


def choose(page: Any, file: Path) -> None:
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Upload").click()


def stop_after(page: Any, slices: int) -> None:
    """Let some slices through; the line is dead for what follows."""
    passed = 0

    def route(route: Any) -> None:
        nonlocal passed
        if route.request.method == "PATCH":
            passed += 1
        if passed > slices:
            route.abort()
        else:
            route.continue_()

    page.route("**/api/uploads/*", route)


def assert_stored(person: Person, file: Path, hypervisor: str = "kvm") -> None:
    files = person.ask("GET", "/api/images/disk?view=full").json["files"]
    assert files[hypervisor]["checksum"]["value"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert person.ask("GET", "/api/uploads").json == []


def test_a_file_is_uploaded_with_progress(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk")
    page.get_by_role("link", name="Upload a file").click()
    page.get_by_label("For").select_option(label="xen")
    seen: list[str] = []
    page.expose_function("seen", lambda words: seen.append(words))
    page.evaluate(
        "new MutationObserver(() => seen(document.querySelector('.count').textContent))"
        ".observe(document.querySelector('.count'), {childList: true})"
    )
    choose(page, file)
    page.wait_for_url(f"**/image/{person.name}/disk")
    assert "24 MiB" in page.locator("main").inner_text()
    assert_stored(person, file, "xen")
    assert len(seen) > 3
    assert any(" of 24.0 MiB, " in words and words.endswith("iB/s") for words in seen)


def test_an_upload_is_paused_and_goes_on(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload")
    page.route("**/api/uploads/*", lambda r: (page.wait_for_timeout(150), r.continue_()))
    choose(page, file)
    page.get_by_text("/s").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused.").wait_for()
    [resting] = person.ask("GET", "/api/uploads").json
    page.wait_for_timeout(500)
    [later] = person.ask("GET", "/api/uploads").json
    assert 0 < later["offset"] < SIZE
    assert later["offset"] - resting["offset"] <= 8 * 2**20
    page.unroute("**/api/uploads/*")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"**/image/{person.name}/disk")
    assert_stored(person, file)


def test_a_lost_line_is_taken_up_again(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", expected="net::ERR_FAILED")
    stop_after(page, 2)
    choose(page, file)
    page.get_by_text("The line is lost. Trying again in 2 s.").wait_for()
    page.unroute("**/api/uploads/*")
    page.wait_for_url(f"**/image/{person.name}/disk")
    assert_stored(person, file)


def test_after_a_reload_the_same_file_goes_on(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", expected="net::ERR_FAILED")
    stop_after(page, 3)
    choose(page, file)
    page.get_by_text("The line is lost.").wait_for()
    page.unroute("**/api/uploads/*")
    page.reload()
    [begun] = person.ask("GET", "/api/uploads").json
    assert "Unfinished" in page.locator("main").inner_text()
    sent: list[int] = []
    page.on("request", lambda r: sent.append(len(r.post_data_buffer or b"")))
    choose(page, file)
    page.wait_for_url(f"**/image/{person.name}/disk")
    assert_stored(person, file)
    assert begun["offset"] > 2**20
    assert sum(sent) <= SIZE - begun["offset"]


def test_another_file_is_not_put_behind_the_first_ones_beginning(
    browse: Browse, person: Person, file: Path, tmp_path: Path
) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", expected="net::ERR_FAILED")
    stop_after(page, 2)
    choose(page, file)
    page.get_by_text("The line is lost.").wait_for()
    page.unroute("**/api/uploads/*")
    page.reload()
    other = tmp_path / "other.img"
    other.write_bytes(os.urandom(SIZE))
    choose(page, other)
    page.wait_for_url(f"**/image/{person.name}/disk")
    files = person.ask("GET", "/api/images/disk?view=full").json["files"]
    assert files["kvm"]["checksum"]["value"] == hashlib.sha256(other.read_bytes()).hexdigest()
    page.goto(f"/image/{person.name}/disk/upload")
    page.get_by_role("button", name="Give up").click()
    assert "Unfinished" not in page.locator("main").inner_text()
    assert person.ask("GET", "/api/uploads").json == []


def test_an_empty_file_is_a_file(browse: Browse, person: Person, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    page = browse(person, f"/image/{person.name}/disk/upload")
    choose(page, tmp_path / "empty")
    page.wait_for_url(f"**/image/{person.name}/disk")
    assert_stored(person, tmp_path / "empty")


def test_a_refusal_is_said_in_words(
    browse: Browse, daemon: Daemon, person: Person, file: Path
) -> None:
    daemon.admin.ask("POST", f"/api/users/{person.name}", form={"quota": 1000})
    page = browse(person, f"/image/{person.name}/disk/upload", expected="413")
    choose(page, file)
    page.get_by_text("quota").wait_for()
    assert page.get_by_role("button", name="Upload").is_enabled()


def test_without_javascript_the_page_says_how_else(browse: Browse, person: Person) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", javascript=False)
    text = page.locator("main").inner_text()
    assert "needs JavaScript" in text
    assert "curl --fail --upload-file FILE" in text
    assert page.get_by_label("File").count() == 0 or not page.get_by_label("File").is_visible()


def test_only_who_may_upload_gets_the_page(daemon: Daemon, person: Person) -> None:
    path = f"/image/{person.name}/disk/upload"
    assert daemon.newcomer().ask("GET", path).status == 404
    assert daemon.nobody.ask("GET", path).status == 403
    person.ask("POST", "/api/images/disk", form={"read_only": "true"})
    assert person.ask("GET", path).status == 403


def test_a_killed_daemon_costs_no_more_than_a_slice(
    browse: Browse, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "grid").mkdir()
    daemon = Daemon(tmp_path / "grid")
    with daemon.running():
        person = daemon.newcomer()
        form = {"name": "disk", "hypervisor": "kvm,xen"}
        assert person.ask("POST", "/api/images", form=form).status == 201
        page = browse(person, f"/image/{person.name}/disk/upload", expected=None)
        page.route("**/api/uploads/*", lambda r: (page.wait_for_timeout(200), r.continue_()))
        choose(page, file)
        page.get_by_text("/s").wait_for()
        daemon.stop(signal.SIGKILL)
        page.get_by_text("Trying again in").wait_for()
        daemon.start()
        page.wait_for_url(f"**/image/{person.name}/disk", timeout=60_000)
        assert_stored(person, file)


@contextmanager
def nothing_sent_twice(page: Any) -> Iterator[None]:
    """No slice that the page sends while the block runs is one that it has sent before."""
    offsets: list[str] = []
    page.on("request", lambda r: offsets.append(r.headers.get("upload-offset", "")))
    yield
    sent = [offset for offset in offsets if offset]
    assert len(sent) == len(set(sent)), sent


def test_a_pause_while_the_line_is_lost_is_one(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", expected="net::ERR_FAILED")
    stop_after(page, 2)
    choose(page, file)
    page.get_by_text("Trying again in 4 s.").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused.").wait_for(timeout=2_000)
    page.unroute("**/api/uploads/*")
    with nothing_sent_twice(page):
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"**/image/{person.name}/disk")
        assert_stored(person, file)


def test_going_on_at_once_does_not_send_twice(browse: Browse, person: Person, file: Path) -> None:
    page = browse(person, f"/image/{person.name}/disk/upload", expected="net::ERR_FAILED")
    stop_after(page, 2)
    choose(page, file)
    page.get_by_text("Trying again in 2 s.").wait_for()
    page.unroute("**/api/uploads/*")
    with nothing_sent_twice(page):
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url(f"**/image/{person.name}/disk")
        assert_stored(person, file)
