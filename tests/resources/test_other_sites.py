"""What a page of another site cannot make its visitor's browser do to the API."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.server import Daemon, Person

EVIL = "https://evil.example"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def visitor(daemon: Daemon) -> Person:
    visitor = daemon.newcomer()
    assert visitor.ask("POST", "/api/images", form={"name": "one"}).status == 201
    assert visitor.ask("PUT", "/api/images/raw/one", body=b"one").status == 200
    return visitor


FOREIGN: list[Mapping[str, str]] = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://{host}"},
    {"Origin": "https://{host}.evil.example"},
    {"Sec-Fetch-Site": "same-origin", "Origin": EVIL},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_foreign_page_changes_nothing(
    visitor: Person, daemon: Daemon, headers: Mapping[str, str]
) -> None:
    headers = {k: v.format(host=f"localhost:{daemon.https}") for k, v in headers.items()}
    changes = [
        ("POST", "/api/images", {"Content-Type": FORM}, b"name=planted"),
        # What a form can send that looks like JSON has this type; no type at all, a Blob.
        ("POST", "/api/images", {"Content-Type": "text/plain"}, b'{"name": "planted"}'),
        ("POST", "/api/images", {}, b"name=planted"),
        ("POST", "/api/images/one", {"Content-Type": FORM}, b"unauthenticated_access=true"),
        ("POST", "/api/images/one/share/group/users", {}, b""),
        ("POST", f"/api/users/{visitor.name}", {"Content-Type": FORM}, b"full_name=Fool"),
        ("POST", "/api/images/raw/one", {"Upload-Complete": "?1"}, b"two"),
        ("PUT", "/api/images/raw/one", {}, b"two"),
        ("DELETE", "/api/images/one", {}, b""),
    ]
    for method, path, more, body in changes:
        answer = visitor.ask(method, path, body=body, headers={**headers, **more})
        assert answer.status == 403, (method, path, answer)
        assert answer.text.startswith("A page of another site made your browser ask for this")
    assert visitor.ask("GET", f"/api/images?owner={visitor.name}").json == [
        f"{daemon.url}/api/images/{visitor.name}/one"
    ]
    image = visitor.ask("GET", "/api/images/one").json
    assert (image["unauthenticated_access"], image["shared_with"]["groups"]) == (False, [])
    assert visitor.ask("GET", "/api/images/raw/one").body == b"one"
    assert visitor.ask("GET", "/api/whoami").json["full_name"] is None


@pytest.mark.parametrize("shown", ["image", "iframe", "object", "script", "empty"])
def test_a_foreign_page_cannot_find_out_what_there_is(visitor: Person, shown: str) -> None:
    mode = "navigate" if shown in ("iframe", "object") else "no-cors"
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": shown}
    there = visitor.ask("GET", "/api/images/raw/one", headers=headers)
    absent = visitor.ask("GET", "/api/images/raw/two", headers=headers)
    assert (there.status, there.body) == (absent.status, absent.body)
    assert visitor.ask("HEAD", "/api/images/raw/one", headers=headers).status == 403


@pytest.mark.parametrize("shown", ["document", "empty", "", None])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_from_anywhere_is_opened_or_saved(
    visitor: Person, site: str, shown: str | None
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    if shown is not None:
        headers["Sec-Fetch-Dest"] = shown
    for more in ({}, {"Sec-Fetch-User": "?1"}):
        answer = visitor.ask("GET", "/api/images/raw/one", headers={**headers, **more})
        assert (answer.status, answer.body) == (200, b"one")
        assert answer.headers["Content-Disposition"].startswith("attachment")


FRAMES = ("iframe", "frame", "object", "embed", "fencedframe")
NO_LINKS = {
    **{shown: ("GET", {"Sec-Fetch-Dest": shown}) for shown in FRAMES},
    "a frame that was clicked on": ("GET", {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-User": "?1"}),
    "an early frame": ("GET", {"Sec-Fetch-Mode": "nested-navigate"}),
    "a picture": ("GET", {"Sec-Fetch-Dest": "image"}),
    "a form": ("POST", {"Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}),
    "a form into a file": ("POST", {"Sec-Fetch-Dest": "empty"}),
    "an upload": ("PUT", {"Sec-Fetch-Dest": "empty"}),
    "a removal": ("DELETE", {"Sec-Fetch-Dest": "empty"}),
    "a look": ("HEAD", {"Sec-Fetch-Dest": "empty"}),
    "no navigation": ("GET", {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}),
    "a script": ("GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
    "ahead": ("GET", {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch"}),
    "shown ahead": ("GET", {"Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch;prerender"}),
    "with an origin": ("GET", {"Sec-Fetch-Dest": "empty", "Origin": EVIL}),
}


@pytest.mark.parametrize("kind", NO_LINKS)
def test_what_no_person_asked_for_is_no_link(visitor: Person, kind: str) -> None:
    method, more = NO_LINKS[kind]
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", **more}
    body = b"two" if method in ("POST", "PUT") else None
    for name in ("one", "two"):
        target = f"/api/images/raw/{name}" if method != "DELETE" else f"/api/images/{name}"
        assert visitor.ask(method, target, body=body, headers=headers).status == 403
    assert visitor.ask("GET", "/api/images/raw/one").body == b"one"


def test_our_own_pages_and_typed_addresses_are_answered(visitor: Person, daemon: Daemon) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Origin": daemon.url}
    path = f"/api/users/{visitor.name}"
    assert visitor.ask("POST", path, form={"email": ""}, headers=own).status == 200
    assert visitor.ask("GET", "/api/whoami", headers={"Sec-Fetch-Site": "none"}).status == 200
