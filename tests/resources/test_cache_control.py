"""Who may keep an answer, and that each says so: a cache that is told nothing guesses."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from repoman.pages import Pages
from repoman.pages.assets import SCRIPT, STYLE
from tests.resources.test_description import AnyRepository
from tests.server import Answer, Daemon, Person, ask_plain, free_ports

PATHS = json.loads(files("repoman").joinpath("openapi.json").read_text())["paths"]
ROUTES = [
    (used.upper(), path)
    for used in ("get", "post", "put", "patch", "delete")  # first what leaves things as they are
    for path, operations in PATHS.items()
    if used in operations
]
PAGES = (
    "/", "/shared", "/public", "/all", "/me", "/new", "/certificate", "/users", "/users/new",
    "/user/{user}", "/groups", "/group/{group}", "/image/{user}/{image}",
    "/image/{user}/{image}/upload", "/activity", "/activity/audit", "/nothing", "/assets/none",
)  # fmt: skip
STREAMS = {"/activity/transfers"}
"""Pages without an end, which no plain client reads to it."""

FORMS = (
    "/users/new", "/user/{user}/change", "/user/{user}/delete", "/groups", "/group/{group}/change",
    "/group/{group}/delete", "/group/{group}/members", "/group/{group}/permissions",
    "/image/{user}/{image}/change", "/image/{user}/{image}/share", "/image/{user}/{image}/delete",
    "/offer/{user}/{image}/accept", "/offer/{user}/{image}/end", "/new", "/me",
    "/image/{user}/{image}/upload",
)  # fmt: skip
"""What pages send."""
READING = ("GET", "HEAD")
NOBODY = ("nobody", "plain")
SECRET = ("/api/whoami", "/api/uploads/{upload_id}")


def owner_of_two(daemon: Daemon) -> Person:
    """Somebody with a public image and a private one."""
    person = daemon.newcomer()
    for name, public in (("public", True), ("private", False)):
        form = {"name": name, "unauthenticated_access": public}
        person.ask("POST", "/api/images", form=form)
        assert person.ask("PUT", f"/api/images/raw/{name}", body=b"bytes").status == 200
    return person


@pytest.fixture(scope="module")
def alice(daemon: Daemon) -> Person:
    """The same one, of whom all is asked, until all is deleted."""
    return owner_of_two(daemon)


@pytest.fixture
def carol(daemon: Daemon) -> Person:
    """Another one."""
    return owner_of_two(daemon)


def targets(path: str, alice: Person) -> Iterator[str]:
    """What a path means: things that are there, and that are not."""
    for image, group in (("public", "users"), ("private", "admins"), ("none", "none")):
        owner = alice.name if image != "none" else "none"
        name = "none" if "/share/" in path else image
        yield path.format(
            image=image, user=owner, owner=owner, word=owner, group=group, hypervisor="default",
            upload_id="none", permission="none", name=name,
        )  # fmt: skip


def asked(daemon: Daemon, alice: Person, method: str, target: str) -> Iterator[tuple[str, Answer]]:
    """What each kind of caller is told."""
    for who, person in (
        ("owner", alice), ("admin", daemon.admin), ("nobody", daemon.nobody),
    ):  # fmt: skip
        yield who, person.ask(method, target)
    yield "plain", ask_plain(daemon.plain + target, method)


def of_all(target: str) -> str:
    """What a target says of a file, if it says whose."""
    return target.replace("/default/", "/") if "/raw/" in target else ""


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_answer_says_who_may_keep_it(
    daemon: Daemon, alice: Person, method: str, path: str
) -> None:
    """All routes, for all callers, with all that they are told: refusals too."""
    for used in ("GET", "HEAD") if method == "GET" else (method,):
        for target in dict.fromkeys(targets(path, alice)):
            if method == "DELETE" and target == f"/api/users/{alice.name}":
                continue  # the owner of all that is asked for here
            for who, answer in asked(daemon, alice, used, target):
                kept = answer.headers.get("Cache-Control")
                if answer.status >= 400 or method != "GET" or path in SECRET:
                    assert kept == "no-store", (used, target, who, answer)
                elif (
                    who in NOBODY
                    or path == "/api/openapi.json"
                    or f"{alice.name}/public" in of_all(target)
                ):
                    assert kept == "no-cache", (used, target, who, answer)
                else:
                    assert kept == "private, no-cache", (used, target, who, answer)
                assert "*" not in answer.headers.get("Vary", "")


def test_the_tables_of_pages_are_those_of_the_code() -> None:
    """Those of the API are: see test_description.py."""
    pages = Pages(AnyRepository(), None, b"", None, None)  # type: ignore[arg-type]  # none is asked
    names = {"user", "owner", "group", "image", "name"}

    def shape(path: str) -> str:
        return re.sub("|".join(f"[<{{]{name}[>}}]" for name in names), "*", path)

    found: dict[str, set[str]] = {"GET": set(), "POST": set()}
    for rule in pages._routes._app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD"}:
            found[method].add(shape(rule.rule))
    assert found["GET"] == {*map(shape, PAGES), *STREAMS} - {"/nothing", "/assets/none"}
    assert found["POST"] == set(map(shape, FORMS))


@pytest.mark.parametrize("path", dict.fromkeys([*PAGES, *FORMS]))
def test_every_page_says_who_may_keep_it(daemon: Daemon, alice: Person, path: str) -> None:
    """What has a token that a form is sent with is kept by nobody."""
    for used in ("GET", "HEAD", "POST", "DELETE"):
        for target in dict.fromkeys(targets(path, alice)):
            for who, answer in asked(daemon, alice, used, target):
                kept = answer.headers.get("Cache-Control")
                if answer.status >= 300 or used not in READING or b'name="token"' in answer.body:
                    assert kept == "no-store", (used, target, who, answer)
                elif used == "GET":
                    assert kept == "private, no-cache", (used, target, who, answer)
                else:
                    assert kept in ("no-store", "private, no-cache"), (used, target, who, answer)


def test_a_public_image_at_an_address_of_ones_own_is_for_its_owner(
    carol: Person,
) -> None:
    """``/api/images/raw/NAME`` means another file to another caller."""
    for path in ("public", "default/public", "xen/public"):
        answer = carol.ask("GET", f"/api/images/raw/{path}")
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "private, no-cache")


@pytest.mark.parametrize("image", ["public", "private"])
def test_parts_and_what_is_unmodified_are_kept_as_the_whole(carol: Person, image: str) -> None:
    path = f"/api/images/raw/{carol.name}/{image}"
    whole = carol.ask("GET", path)
    kept = {"public": "no-cache", "private": "private, no-cache"}[image]
    since = {"If-Modified-Since": whole.headers["Last-Modified"]}
    for status, headers in (
        (200, {}), (206, {"Range": "bytes=1-2"}), (304, since),
        (304, {"If-None-Match": whole.headers["Etag"]}),
    ):  # fmt: skip
        answer = carol.ask("GET", path, headers=headers)
        assert (answer.status, answer.headers["Cache-Control"]) == (status, kept)
        assert answer.headers["Etag"] == whole.headers["Etag"]
    for status, headers in (
        (412, {"If-Match": '"other"'}), (416, {"Range": "bytes=99-"}),
    ):  # fmt: skip
        answer = carol.ask("GET", path, headers=headers)
        assert (answer.status, answer.headers["Cache-Control"]) == (status, "no-store")


def test_a_file_of_the_pages_is_kept_for_long_at_the_address_of_its_content_only(
    daemon: Daemon,
) -> None:
    """Else a page of the next version would for a year be shown with the style of this one."""
    for address in (STYLE, SCRIPT):
        kept = daemon.nobody.ask("GET", address).headers["Cache-Control"]
        assert kept == "public, max-age=31536000, immutable"
        for other in ("?v=other", "?", ""):
            path = address.partition("?")[0] + other
            answer = daemon.nobody.ask("GET", path)
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //api/%2e%2e/x HTTP/1.0\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_for_this_once(daemon: Daemon, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", daemon.http), timeout=20) as connection:
        connection.sendall(sent)
        told = connection.recv(65536)
    assert b"\r\nCache-Control: no-store\r\n" in told, told


def test_what_monitoring_is_told_is_kept_by_nobody(
    tmp_path: Path,
) -> None:
    [port] = free_ports(1)
    metrics = {"endpoint": f"tcp:{port}:interface=127.0.0.1"}
    with Daemon(tmp_path, metrics=metrics).running():
        for path in ("/metrics", "/healthz", "/readyz", "/nothing"):
            for method in ("GET", "HEAD", "POST"):
                answer = ask_plain(f"http://127.0.0.1:{port}{path}", method)
                assert answer.headers["Cache-Control"] == "no-store", (method, path)
