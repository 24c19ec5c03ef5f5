"""Giving an image away in a browser: offered, accepted, declined, withdrawn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pages.conftest import Browse
from tests.pages.test_forgery import post, token_of
from tests.pages.test_owning import opened
from tests.server import Daemon, Person


@pytest.fixture
def owner(daemon: Daemon) -> Person:
    owner = daemon.newcomer()
    form = {"name": "disk", "description": "<b>Batch</b> node", "os_type": "Linux"}
    assert owner.ask("POST", "/api/images", form=form).status == 201
    assert owner.ask("PUT", "/api/images/raw/disk", body=b"bytes").status == 200
    return owner


@pytest.fixture
def friend(daemon: Daemon) -> Person:
    return daemon.newcomer()


def offer(browse: Browse, owner: Person, friend: Person) -> Any:
    """The owner's first page, when they have just offered an image on its own."""
    page = browse(owner, f"/image/{owner.name}/disk", javascript=False)
    form = opened(page, "Owner")
    form.get_by_label("New owner").fill(friend.name)
    form.get_by_role("button", name="Offer").click()
    assert f"disk, to {friend.name}, until" in page.locator("main").inner_text()
    return page


def offers_of(person: Person) -> list[Any]:
    found: list[Any] = person.ask("GET", "/api/offers").json
    return found


@pytest.mark.parametrize("javascript", [True, False])
def test_an_offer_is_accepted_under_the_name_that_the_recipient_likes(
    browse: Browse, owner: Person, friend: Person, javascript: bool
) -> None:
    friend.ask("POST", "/api/images", form={"name": "disk"})
    offer(browse, owner, friend)
    assert owner.ask("GET", "/api/images/disk").json["owner_user_name"] == owner.name
    page = browse(friend, javascript=javascript)
    section = page.locator("section", has=page.get_by_role("heading", name="Offered to you"))
    for words in (f"{owner.name}/disk", "<b>Batch</b> node", "Linux", "5 bytes", "Offered until"):
        assert words in section.inner_text()
    section.get_by_role("button", name="Accept").click()
    assert "accept this one under another name" in page.get_by_role("alert").inner_text()
    page.get_by_role("link", name="Go back").click()
    page.get_by_label("Its name, when it is yours").fill("gift")
    page.get_by_role("button", name="Accept").click()
    page.wait_for_url(f"**/image/{friend.name}/gift")
    assert friend.ask("GET", "/api/images/raw/gift").body == b"bytes"
    assert offers_of(friend) == offers_of(owner) == []


def test_an_offer_is_declined(browse: Browse, owner: Person, friend: Person) -> None:
    offer(browse, owner, friend)
    page = browse(friend, javascript=False)
    page.get_by_role("button", name="Decline").click()
    assert "Offered to you" not in page.locator("main").inner_text()
    assert offers_of(owner) == []
    assert owner.ask("GET", "/api/images/raw/disk").body == b"bytes"


def test_an_offer_is_withdrawn(browse: Browse, owner: Person, friend: Person) -> None:
    page = offer(browse, owner, friend)
    page.get_by_role("button", name="Withdraw").click()
    assert "Offered by you" not in page.locator("main").inner_text()
    assert offers_of(friend) == []


def test_what_is_protected_meanwhile_can_still_be_withdrawn(
    browse: Browse, owner: Person, friend: Person
) -> None:
    page = offer(browse, owner, friend)
    owner.ask("POST", "/api/images/disk", form={"read_only": "true"})
    page.get_by_role("link", name="disk").first.click()
    assert page.get_by_label("New owner").count() == 0
    page.go_back()
    page.get_by_role("button", name="Withdraw").click()
    assert "Offered by you" not in page.locator("main").inner_text()
    assert offers_of(friend) == []


def test_an_administrator_gives_at_once(
    browse: Browse, daemon: Daemon, owner: Person, friend: Person
) -> None:
    page = browse(daemon.admin, f"/image/{owner.name}/disk", javascript=False)
    form = opened(page, "Owner")
    form.get_by_label("New owner").fill(friend.name)
    form.get_by_role("button", name="Give away").click()
    page.wait_for_url(f"**/image/{friend.name}/disk")
    assert friend.ask("GET", "/api/images/raw/disk").body == b"bytes"


def test_who_does_not_own_it_has_no_form_to_give_it(
    browse: Browse, daemon: Daemon, owner: Person, friend: Person
) -> None:
    form = {"name": f"of-{owner.name}", "users": f"{owner.name},{friend.name}"}
    daemon.admin.ask("POST", "/api/groups", form={**form, "permissions": "image_modify_group"})
    owner.ask("POST", f"/api/images/disk/share/user/{friend.name}")
    page = browse(friend, f"/image/{owner.name}/disk", javascript=False)
    assert page.locator("summary", has_text="Name").count() == 1
    assert page.locator("summary", has_text="Owner").count() == 0


@pytest.mark.parametrize("action", ["accept", "end"])
def test_an_offer_ends_with_its_token_only(owner: Person, friend: Person, action: str) -> None:
    owner.ask("POST", "/api/images/disk", form={"owner": friend.name})
    path = f"/offer/{owner.name}/disk/{action}"
    other = "end" if action == "accept" else "accept"
    tokens = ["", token_of(friend, f"/offer/{owner.name}/disk/{other}", "/")]
    for token in tokens:
        assert post(friend, path, token).status == 403
    token = token_of(friend, path, "/")
    assert post(owner, path, token).status == 403
    away = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    assert post(friend, path, token, away).status == 403
    assert len(offers_of(friend)) == 1
    assert post(friend, path, token).status == 303


def test_what_was_not_seen_is_not_accepted(owner: Person, friend: Person) -> None:
    owner.ask("POST", "/api/images/disk", form={"owner": friend.name})
    path = f"/offer/{owner.name}/disk/accept"
    token = token_of(friend, path, "/")
    owner.ask("PUT", "/api/images/raw/disk", body=b"something else")
    refused = post(friend, path, token, version="1")
    assert (refused.status, "Look at it again" in refused.text) == (409, True)


def test_a_page_shows_a_few_of_very_many_offers(daemon: Daemon, friend: Person) -> None:
    owner = daemon.newcomer()
    for number in range(22):
        owner.ask("POST", "/api/images", form={"name": f"i{number}"})
        owner.ask("POST", f"/api/images/i{number}", form={"owner": friend.name})
    text = friend.ask("GET", "/").text
    assert text.count(">Accept<") == 20
    assert "And more" in text
