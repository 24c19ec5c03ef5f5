"""Forms that somebody else made: refused or inert."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import pytest

from repoman.errors import Protected
from repoman.model import Caller, Identity
from repoman.pages.tokens import LIFETIME, Tokens
from tests.pages.conftest import Browse
from tests.server import Daemon, Person

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def owner(daemon: Daemon) -> Person:
    return with_image(daemon.newcomer())


def with_image(person: Person) -> Person:
    assert person.ask("POST", "/api/images", form={"name": "disk"}).status == 201
    return person


def token_of(person: Person, action: str, path: str = "") -> str:
    html = person.ask("GET", path or f"/image/{person.name}/disk").text
    form = re.search(rf'action="{re.escape(action)}".*?name="token" value="([^"]+)"', html)
    assert form, html
    return form[1]


def post(person: Person, path: str, token: str, headers: Any = None, **fields: str) -> Any:
    own = {"Origin": person.daemon.url, "Sec-Fetch-Site": "same-origin"}
    form = {**fields, "token": token}
    return person.ask("POST", path, form=form, headers=own if headers is None else headers)


def test_a_form_is_taken_with_its_token_only(daemon: Daemon, owner: Person) -> None:
    change, delete = (f"/image/{owner.name}/disk/{a}" for a in ("change", "delete"))
    right = token_of(owner, change)
    other = with_image(daemon.newcomer())
    ends, _, seal = right.partition(".")
    wrong = [
        "", "x", ".", "..",
        f"{ends}.", f".{seal}", f"{int(ends) + 1}.{seal}", f"{ends}.{seal[:-1]}",
        f"{ends}.{seal}0", f"{ends}.{seal.upper()}", f"٣.{seal}",
        token_of(owner, delete),  # another action's
        token_of(other, f"/image/{other.name}/disk/change"),  # another user's
        token_of(daemon.admin, change, f"/image/{owner.name}/disk"),  # an administrator's, for it
        token_of(daemon.admin, "/me", "/me"),
    ]  # fmt: skip
    for token in wrong:
        answer = post(owner, change, token, description="forged")
        assert answer.status == 403, token
        assert "The form is too old" in answer.text
    assert owner.ask("POST", change, form={"description": "forged"}).status == 403
    assert owner.ask("GET", "/api/images/disk").json["description"] is None
    assert post(owner, change, right, description="right").status == 303
    assert owner.ask("GET", "/api/images/disk").json["description"] == "right"


def test_a_token_of_another_user_is_none_of_mine(daemon: Daemon, owner: Person) -> None:
    path = f"/image/{owner.name}/disk/delete"
    token = token_of(owner, path)
    assert post(daemon.admin, path, token, typed="disk").status == 403
    assert post(daemon.nobody, path, token, typed="disk").status == 403
    assert owner.ask("GET", "/api/images/disk").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "own"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)  # fmt: skip
def test_even_a_stolen_token_is_no_use_to_another_site(
    owner: Person, headers: dict[str, str]
) -> None:
    path = f"/image/{owner.name}/disk/delete"
    token = token_of(owner, path)
    said = {k: v.replace("own", owner.daemon.url) for k, v in headers.items()}
    assert post(owner, path, token, said, typed="disk").status == 403
    assert owner.ask("GET", "/api/images/disk").status == 200


def test_a_token_ends_with_its_time_and_with_the_daemon() -> None:
    me = Caller(None, Identity("/CN=me", "/CN=ca", limited=False, proxies=0, not_after=NOW))
    time = NOW
    tokens = Tokens(b"s" * 32, lambda: time)
    token = tokens.issue(me, "/a")
    time = NOW + timedelta(seconds=LIFETIME)
    tokens.check(me, "/a", token)
    with pytest.raises(Protected):
        Tokens(b"t" * 32, lambda: time).check(me, "/a", token)
    time += timedelta(seconds=1)
    with pytest.raises(Protected):
        tokens.check(me, "/a", token)


def test_two_different_lists_of_parts_are_two_tokens() -> None:
    tokens = Tokens(b"s" * 32, lambda: NOW)

    def caller(subject: str, issuer: str, anchor: str | None) -> Caller:
        return Caller(None, Identity(subject, issuer, False, 0, NOW, anchor))

    token = tokens.issue(caller("/CN=a", "/CN=b/c", "/CN=e"), "/d")
    for subject, issuer, anchor, action in (
        ("/CN=a/CN=b", "/c", "/CN=e", "/d"), ("/CN=a", "/CN=b", "/CN=e", "/c/d"),
        ("/CN=b/c", "/CN=a", "/CN=e", "/d"), ("/CN=a", "/CN=b/c", "/CN=f", "/d"),
        ("/CN=a", "/CN=b/c", None, "/d"), ("/CN=a", "/CN=b/c", "/CN=e/d", ""),
    ):  # fmt: skip
        with pytest.raises(Protected):
            tokens.check(caller(subject, issuer, anchor), action, token)


class EvilSite:
    """A site elsewhere, whose pages are what a test says."""

    def __init__(self) -> None:
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(site.html.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.html = ""
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def evil() -> Iterator[EvilSite]:
    site = EvilSite()
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_a_browser_with_a_certificate_carries_no_foreign_form(
    browse: Browse, owner: Person, evil: EvilSite
) -> None:
    path = f"/image/{owner.name}/disk/delete"
    token = token_of(owner, path)
    posts = {
        f"/api/images/{owner.name}/disk": {"unauthenticated_access": "true"},
        "/api/images": {"name": "planted"},
        f"/api/users/{owner.name}": {"full_name": "Fool"},
        path: {"typed": "disk", "token": token},
    }
    page = browse(owner, expected="Failed to load")
    for target, fields in posts.items():
        inputs = "".join(f'<input name="{k}" value="{v}">' for k, v in fields.items())
        evil.html = (
            f'<form method="post" action="{owner.daemon.url}{target}">{inputs}'
            "<button>Win a prize</button></form>"
        )
        page.goto(evil.url)
        with page.expect_navigation() as done:
            page.get_by_role("button").click()
        assert done.value.status == 403, target
        assert "another site" in page.content()
    assert owner.ask("GET", "/api/images/disk").json["unauthenticated_access"] is False
    assert owner.ask("GET", f"/api/images?owner={owner.name}").json == [
        f"{owner.daemon.url}/api/images/{owner.name}/disk"
    ]
    assert owner.ask("GET", "/api/whoami").json["full_name"] is None


def test_a_browser_with_a_certificate_carries_no_foreign_script(
    browse: Browse, owner: Person, evil: EvilSite
) -> None:
    query = urlencode({"name": "planted"})
    evil.html = f"""<script>
        const to = {owner.daemon.url!r} + "/api/images", credentials = "include", mode = "no-cors";
        const form = {{"Content-Type": "application/x-www-form-urlencoded"}};
        Promise.allSettled([
            fetch(to, {{method: "POST", mode, credentials, headers: form, body: {query!r}}}),
            fetch(to, {{method: "POST", mode, credentials, body: new Blob([{query!r}])}}),
            fetch(to + "/disk", {{method: "DELETE", credentials}}),
            fetch(to + "/raw/disk", {{method: "PUT", credentials, body: "planted"}}),
            fetch(to + "/disk", {{credentials}}).then((a) => a.text()),
        ]).then((r) => {{ document.title = r.map((one) => one.status).join(); }});
    </script>"""
    page = browse(owner, expected=None)
    page.goto(evil.url)
    page.wait_for_function("document.title.includes(',')")
    assert page.title().split(",")[2:] == ["rejected"] * 3
    listed = owner.ask("GET", f"/api/images?owner={owner.name}&view=full").json
    assert [(i["name"], i["size"]) for i in listed] == [("disk", None)]


def test_a_page_of_ours_is_in_nobodys_frame(browse: Browse, owner: Person, evil: EvilSite) -> None:
    for target in ("/", f"/image/{owner.name}/disk", "/api/whoami"):
        evil.html = f'<iframe src="{owner.daemon.url}{target}"></iframe>'
        page = browse(owner, "about:blank", expected=None)
        page.goto(evil.url)
        page.wait_for_load_state("networkidle")
        framed = page.frames[1]
        assert owner.name not in framed.content()
        # What forbids it is said without Sec-Fetch-Site as well.
        policy = owner.ask("GET", target).headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
