"""Values of hostile shape are text on a page, and nothing else."""

from __future__ import annotations

import pytest

from tests.credentials import p256_key
from tests.pages.conftest import Browse
from tests.server import Daemon, Person

SCRIPT = "</textarea></title></script><script>window.broken=1</script><img src=x onerror=broken=1>"
QUOTED = "\"' autofocus onfocus='broken=1' x=\"&lt;&amp;amp;"
NASTY = [SCRIPT, QUOTED, "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", "]]>--><svg/onload=broken=1>", "\x01"]


@pytest.mark.parametrize("text", NASTY)
def test_a_description_is_shown_as_it_is(browse: Browse, daemon: Daemon, text: str) -> None:
    person = daemon.newcomer(full_name=text)
    fields = dict.fromkeys(("description", "os_type", "os_arch", "os_variant"), text)
    form = {"name": "x", "unauthenticated_access": "true", **fields}
    assert person.ask("POST", "/api/images", form=form).status == 201
    for who, path in (
        (person, "/"), (person, f"/image/{person.name}/x"), (person, "/me"),
        (daemon.nobody, f"/?owner={person.name}"), (daemon.nobody, f"/image/{person.name}/x"),
    ):  # fmt: skip
        page = browse(who, path)
        assert page.evaluate("window.broken") is None
        if text.isprintable() and (path != "/me"):
            assert text in page.locator("p.about").first.text_content()


@pytest.mark.parametrize("text", NASTY)
def test_a_search_is_shown_as_it_is(browse: Browse, daemon: Daemon, text: str) -> None:
    page = browse(daemon.nobody)
    page.get_by_label("Search").fill(text)
    page.get_by_role("button", name="Search").click()
    assert page.evaluate("window.broken") is None
    assert page.get_by_label("Search").input_value() == text


@pytest.mark.parametrize("text", [SCRIPT.replace("/", "|"), QUOTED])
def test_a_distinguished_name_is_shown_as_it_is(browse: Browse, daemon: Daemon, text: str) -> None:
    user = daemon.grid.user(text, key=p256_key("hostile"))
    person = Person(daemon, dn=f"/C=CA/O=Grid/CN={text}", credential=user)
    page = browse(person)
    assert page.evaluate("window.broken") is None
    assert "onerror" in page.get_by_role("status").text_content() or "autofocus" in (
        page.get_by_role("status").text_content()
    )


@pytest.mark.parametrize(
    "query", ["sort=x", "after=x", "sort=%00", "q=%00", "owner=%00", "after=W10%3D", "os_type=%ff"]
)
def test_a_broken_query_is_refused_in_words(daemon: Daemon, query: str) -> None:
    answer = daemon.nobody.ask("GET", f"/?{query}")
    assert answer.status in (200, 400)
    assert answer.headers["Content-Type"].startswith("text/html")


def test_names_of_the_greatest_length_do_not_stick_out(browse: Browse, daemon: Daemon) -> None:
    longest, hypervisors = "W" * 100, ",".join("HV"[n] * 100 for n in range(2))
    person = daemon.newcomer("U" * 100)
    daemon.admin.ask("POST", "/api/groups", form={"name": longest, "users": person.name})
    person.ask("POST", "/api/images", form={"name": longest, "hypervisor": hypervisors})
    person.ask("PUT", f"/api/images/raw/{person.name}/{'H' * 100}/{longest}", body=b"x")
    person.ask("POST", f"/api/images/{longest}/share/group/{longest}")
    image, user, group = f"/image/{person.name}/{longest}", f"/user/{person.name}", longest
    for who, paths in (
        (person, ("/", "/me", image, f"{image}/upload")),
        (daemon.admin, (f"/all?owner={person.name}", "/users", user, "/groups", f"/group/{group}")),
    ):
        page = browse(who, phone=True)
        for path in paths:
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("application/json", "application/problem+json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
    ],
)
def test_an_address_of_nothing_is_told_to_whom_asks(daemon: Daemon, accept: str, kind: str) -> None:
    """A program that misspelt an address of the API does not print a page to its user."""
    for path in ("/nosuch", "//api/images", "/API/whoami"):
        answer = daemon.nobody.ask("GET", path, headers={"Accept": accept})
        assert answer.status == 404
        assert answer.headers["Content-Type"].split(";")[0] == kind, path
