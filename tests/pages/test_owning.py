"""Owners change what is theirs, with and without JavaScript."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pages.conftest import Browse
from tests.server import Daemon, Person


@pytest.fixture
def owner(daemon: Daemon) -> Person:
    owner = daemon.newcomer()
    form = {"name": "disk", "hypervisor": "kvm,xen", "os_type": "Linux", "description": "before"}
    assert owner.ask("POST", "/api/images", form=form).status == 201
    assert owner.ask("PUT", f"/api/images/raw/{owner.name}/kvm/disk", body=b"x").status == 200
    return owner


def opened(page: Any, title: str) -> Any:
    """The form below a title of "Change", unfolded."""
    page.locator("summary", has_text=title).click()
    return page.locator("details", has=page.locator("summary", has_text=title)).locator("form")


@pytest.mark.parametrize("javascript", [True, False])
def test_an_image_is_made_and_its_mistakes_are_said(
    browse: Browse, daemon: Daemon, javascript: bool
) -> None:
    person = daemon.newcomer()
    person.ask("POST", "/api/images", form={"name": "taken"})
    page = browse(person, javascript=javascript)
    page.get_by_role("link", name="New image").click()
    page.get_by_label("Name").fill("taken")
    page.get_by_label("Description").fill("\nTwo lines\nof words")
    page.get_by_label("Hypervisors").fill("kvm, xen")
    page.get_by_label("Architecture").fill("aarch64")
    page.get_by_label("Expires").fill("2031-02-03T04:05")
    page.get_by_label("Who may fetch it").select_option("true")
    page.get_by_role("button", name="Create").click()
    assert "taken" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Description").input_value() == "\nTwo lines\nof words"
    assert page.get_by_label("Who may fetch it").input_value() == "true"
    page.get_by_label("Name").fill("fresh")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/fresh/upload")
    image = person.ask("GET", "/api/images/fresh").json
    assert image["description"] == "\nTwo lines\nof words"
    assert (image["hypervisor"], image["os_arch"], image["os_type"]) == ("kvm,xen", "aarch64", None)
    assert image["expires"] == "Mon Feb  3 04:05:00 2031"
    assert image["unauthenticated_access"] is True


def test_its_description_is_changed(browse: Browse, owner: Person) -> None:
    page = browse(owner, f"/image/{owner.name}/disk", javascript=False)
    form = opened(page, "Description")
    form.get_by_label("Description").fill("after")
    form.get_by_label("System").fill("")
    form.get_by_label("Variant").fill("AlmaLinux 9")
    form.get_by_label("Who may fetch it").select_option("true")
    form.get_by_role("button", name="Save").click()
    page.locator("p.about", has_text="after").wait_for()
    image = owner.ask("GET", "/api/images/disk").json
    assert (image["description"], image["os_type"], image["os_variant"]) == (
        "after", None, "AlmaLinux 9",
    )  # fmt: skip
    assert (image["unauthenticated_access"], image["size"]) == (True, 1)
    form = opened(page, "Description")
    form.get_by_label("Who may fetch it").select_option("false")
    form.get_by_role("button", name="Save").click()
    assert owner.ask("GET", "/api/images/disk").json["unauthenticated_access"] is False


def test_it_is_shared_and_unshared_with_names_completed(
    browse: Browse, daemon: Daemon, owner: Person
) -> None:
    friend = daemon.newcomer()
    page = browse(owner, f"/image/{owner.name}/disk", javascript=False)
    field = page.get_by_label("Share with a user")
    offered = page.locator(f"datalist#{field.get_attribute('list')} option")
    assert friend.name in [o.get_attribute("value") for o in offered.all()]
    groups = page.locator("datalist#groups option")
    assert [o.get_attribute("value") for o in groups.all()] == ["users"]
    field.fill(friend.name)
    field.press("Enter")
    assert friend.ask("GET", f"/api/images/{owner.name}/disk").status == 200
    page.get_by_label("Share with a group").fill("users")
    page.get_by_role("button", name="Share").last.click()
    shared = owner.ask("GET", "/api/images/disk").json["shared_with"]
    assert (len(shared["users"]), len(shared["groups"])) == (1, 1)
    page.get_by_role("button", name=f"End sharing with user {friend.name}").click()
    page.get_by_role("button", name="End sharing with group users").click()
    assert "Shared with nobody." in page.locator("main").inner_text()
    assert friend.ask("GET", f"/api/images/{owner.name}/disk").status == 404
    page.get_by_label("Share with a user").fill("nobody-at-all")
    page.get_by_role("button", name="Share").first.click()
    assert "There is no user nobody-at-all." in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Go back").click()
    assert "disk" in page.locator("h1").inner_text()


def test_it_is_renamed_and_expires(browse: Browse, owner: Person) -> None:
    page = browse(owner, f"/image/{owner.name}/disk", javascript=False)
    form = opened(page, "Name")
    form.get_by_label("New name").fill("disk-2")
    form.get_by_role("button", name="Rename").click()
    page.wait_for_url("**/disk-2")
    form = opened(page, "Expiry")
    form.get_by_label("Expires").fill("2020-01-01T00:00")
    form.get_by_role("button", name="Save").click()
    page.locator(".badge", has_text="expired").wait_for()
    assert owner.ask("GET", f"/api/images/raw/{owner.name}/disk-2").status == 410
    form = opened(page, "Expiry")
    assert form.get_by_label("Expires").input_value() == "2020-01-01T00:00"
    form.get_by_label("Expires").fill("")
    form.get_by_role("button", name="Save").click()
    assert owner.ask("GET", f"/api/images/raw/{owner.name}/disk-2").status == 200


def test_it_is_protected_until_that_is_ended(browse: Browse, owner: Person) -> None:
    page = browse(owner, f"/image/{owner.name}/disk", javascript=False)
    opened(page, "Protection").get_by_role("button").click()
    page.locator(".badge", has_text="read-only").wait_for()
    assert page.get_by_role("button", name="Delete").count() == 0
    assert page.get_by_role("link", name="Upload").count() == 0
    page.get_by_role("button", name="End protection").click()
    assert owner.ask("GET", "/api/images/disk").json["read_only"] is False


@pytest.mark.parametrize("javascript", [True, False])
def test_it_is_deleted_only_with_its_name_typed(
    browse: Browse, owner: Person, javascript: bool
) -> None:
    page = browse(owner, f"/image/{owner.name}/disk", javascript=javascript)
    field = page.get_by_label("Type disk to delete it")
    field.fill("disc")
    page.get_by_role("button", name="Delete").click()
    assert field.evaluate("f => f.validity.patternMismatch")
    field.evaluate("f => f.removeAttribute('pattern')")
    page.get_by_role("button", name="Delete").click()
    assert "nothing was deleted" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Go back").click()
    page.get_by_label("Type disk to delete it").fill("disk")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/")
    assert owner.ask("GET", "/api/images/disk").status == 404


def test_others_have_no_forms(browse: Browse, daemon: Daemon, owner: Person) -> None:
    friend = daemon.newcomer()
    owner.ask("POST", f"/api/images/disk/share/user/{friend.name}")
    page = browse(friend, f"/image/{owner.name}/disk")
    assert page.locator("form").count() == 0
    page = browse(daemon.admin, f"/image/{owner.name}/disk")
    assert page.get_by_role("button", name="Delete").count() == 1
