"""Public images for programs that come without a certificate: as JSON, and as directories."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.resources.test_checksums import checked, make
from tests.server import ROOT, Answer, Daemon, Person, ask_plain

BYTES = {name: name.encode() * 1000 for name in ("alma", "xen", "kvm")}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A server whose public images are these."""
    with Daemon(tmp_path_factory.mktemp("public")).running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def owner(daemon: Daemon) -> Person:
    owner, friend = daemon.newcomer("owner"), daemon.newcomer("friend")
    make(owner, "alma", {"kvm": BYTES["alma"]}, description="for <everybody>", os_type="Linux")
    make(owner, "both", {"xen": BYTES["xen"], "kvm": BYTES["kvm"]}, os_type="Linux")
    make(owner, "expired", {"xen": b"expired"}, expires="2020-01-01")
    make(owner, "empty", {"xen": b""})
    make(owner, "private", {"xen": b"private"}, unauthenticated_access="false")
    make(friend, "disk.sha256", {"xen": b"called so"})
    make(daemon.newcomer("secretive"), "hidden", {"xen": b"x"}, unauthenticated_access="false")
    for image in ("alma", "private"):
        assert owner.ask("POST", f"/api/images/{image}/share/user/friend").status == 200
        assert owner.ask("POST", f"/api/images/{image}/share/group/users").status == 200
    daemon.admin.ask("DELETE", "/api/groups/users/users/secretive")
    return owner


@pytest.fixture(scope="module")
def suspended(daemon: Daemon) -> Person:
    suspended = daemon.newcomer("suspended")
    daemon.admin.ask("POST", "/api/users/suspended", form={"suspended": "true"})
    return suspended


@pytest.fixture
def askers(daemon: Daemon, owner: Person, suspended: Person) -> dict[str, Any]:
    """Ways to ask as somebody, by who that is; the first ones are nobody in particular."""
    people = {"nobody": daemon.nobody, "unknown": daemon.stranger(), "suspended": suspended}
    return {
        "plain": lambda path: ask_plain(daemon.plain + path),
        **{who: lambda path, p=person: p.ask("GET", path) for who, person in people.items()},
        "known": lambda path: daemon.newcomer().ask("GET", path),
        "administrator": lambda path: daemon.admin.ask("GET", path),
        "owner": lambda path: owner.ask("GET", path),
    }


NOBODY = ("plain", "nobody", "unknown", "suspended")
EVERYBODY = (*NOBODY, "known", "administrator", "owner")
LISTED = ["owner/alma", "owner/both", "friend/disk.sha256", "owner/empty", "owner/expired"]


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [
        one.split("/api/images/")[1] if isinstance(one, str)
        else f"{one['owner_user_name']}/{one['name']}"
        for one in answer.json
    ]  # fmt: skip


@pytest.mark.parametrize("who", EVERYBODY)
def test_everybody_lists_what_is_public(askers: dict[str, Any], daemon: Daemon, who: str) -> None:
    ask = askers[who]
    for more in ("", "&view=full", "&sort=name"):
        assert names(ask(f"/api/images?public=true{more}")) == LISTED
    assert names(ask("/api/images?public=yes&owner=friend")) == ["friend/disk.sha256"]
    assert names(ask("/api/images?public=true&q=EVERYBODY")) == ["owner/alma"]
    assert names(ask("/api/images?public=true&hypervisor=kvm")) == LISTED[:2]
    assert names(ask("/api/images?public=true&os_type=Linux&sort=-name")) == LISTED[1::-1]
    assert names(ask("/api/images?public=true&owner=secretive")) == []
    here = daemon.plain if who == "plain" else daemon.url
    assert ask("/api/images?public=true").json[0] == f"{here}/api/images/owner/alma"


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("view", ["", "&view=full"])
def test_pages_of_it_lead_to_each_other_where_one_asked(
    askers: dict[str, Any], daemon: Daemon, who: str, view: str
) -> None:
    here = daemon.plain if who == "plain" else daemon.url
    found, path = [], f"/api/images?public=true&limit=2{view}"
    while path:
        answer = askers[who](path)
        found.append(names(answer))
        link = re.fullmatch(f'<{here}(.*)>; rel="next"', answer.headers.get("Link", ""))
        assert link or "Link" not in answer.headers
        path = link[1] if link else ""
    assert found == [LISTED[:2], LISTED[2:4], LISTED[4:]]


@pytest.mark.parametrize("who", EVERYBODY)
def test_everybody_reads_its_record_without_its_shares(
    askers: dict[str, Any], daemon: Daemon, owner: Person, who: str
) -> None:
    ask = askers[who]
    whole = owner.ask("GET", "/api/images/alma?view=full").json
    assert len(whole["shared_with"]["users"]) == len(whole["shared_with"]["groups"]) == 1
    hidden = {**whole, "shared_with": {"users": [], "groups": []}}
    # A member of the group that it is shared with sees that, and so does who sees everything.
    expected = hidden if who in NOBODY else whole
    assert ask("/api/images/owner/alma?view=full").json == expected
    assert ask("/api/images?public=true&view=full").json[0] == expected
    brief = ask("/api/images/owner/alma").json
    assert len(brief) == 21
    assert brief == {k: v for k, v in expected.items() if k != "files"}
    assert brief["http_file_url"] == f"{daemon.plain}/api/images/raw/owner/alma"


def test_a_known_user_is_not_told_the_shares_of_others_either(
    daemon: Daemon, owner: Person
) -> None:
    known = daemon.newcomer()
    daemon.admin.ask("DELETE", f"/api/groups/users/users/{known.name}")
    for path in ("/api/images/owner/alma", "/api/images?public=true&view=full"):
        found = known.ask("GET", path).json
        record = found if isinstance(found, dict) else found[0]
        assert record["shared_with"] == {"users": [], "groups": []}
    assert known.ask("GET", "/api/images").json == []
    for path in ("/api/images/owner/private", "/api/images/owner/nothing"):
        assert known.ask("GET", path).status == 404


CLOSED = (
    "/api/images", "/api/images?public=false", "/api/images?public=", "/api/images?view=full",
    "/api/images/owner/private", "/api/images/owner/nothing", "/api/images/nobody/alma",
    "/api/images/secretive/hidden", "/api/images/alma", "/api/users", "/api/users/owner",
    "/api/users/owner/images?public=true", "/api/groups/users/shared?public=true",
    "/api/users/owner/sharing?public=true", "/api/users/friend/shared?public=true",
    "/api/whoami?public=true", "/api/uploads?public=true", "/api/audit?public=true",
    "/api/images/owner/alma/share/user/friend?public=true",
    "/api/images/raw/secretive/", "/api/images/raw/neverheardof/", "/api/images/raw/kvm/",
    "/api/images/raw/owner/xen/", "/api/images/raw/owner/lxc/", "/api/images/raw/owner/default/",
)  # fmt: skip


@pytest.mark.parametrize("who", NOBODY)
def test_nobody_gets_nothing_else(askers: dict[str, Any], who: str) -> None:
    for path in CLOSED:
        # Whose default file it is for lists no further one.
        expected = 200 if path.endswith("owner/xen/") else 405 if "/share/" in path else 403
        if who == "plain" and "/share/" in path:
            expected = 403
        answer = askers[who](path)
        assert answer.status == expected, path
        assert "private" not in answer.text
        assert "hidden" not in answer.text.replace("secretive/hidden", "")


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("public=perhaps", "public"), ("public=true&shared_with=friend", "shared_with"),
        ("public=true&limit=0", "limit"), ("public=true&sort=colour", "sort"),
        ("public=true&after=x", "after"), ("public=true&q=%00", "q"),
    ],
)  # fmt: skip
def test_a_query_that_means_nothing_is_refused(
    askers: dict[str, Any], who: str, query: str, field: str
) -> None:
    answer = askers[who](f"/api/images?{query}")
    assert answer.status == 400
    assert answer.text.startswith(field)


def test_nothing_changes_on_the_plain_endpoint(daemon: Daemon, owner: Person) -> None:
    for path in ("/api/images?public=true", "/api/images/owner/alma", "/api/images/raw/owner/"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask_plain(daemon.plain + path, method).status == 403
        head = ask_plain(daemon.plain + path, "HEAD")
        assert (head.status, head.body) == (200, b"")


def test_repoman_lists_them_without_a_credential(
    daemon: Daemon, owner: Person, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "repoman.cli", "-H", daemon.url, *words],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
            env={"PATH": os.defpath, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
                 "X509_CERT_DIR": str(daemon.ca_directory)},
        )  # fmt: skip

    assert run("list", "--public").stdout.splitlines() == LISTED
    table = run("list", "--public", "--long")
    assert (table.returncode, table.stdout.count("owner")) == (0, 4)
    assert run("list").returncode == 4  # a credential is missing


# -- directories --


def links(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return re.findall('<a href="([^"]*)">', answer.text)


@pytest.mark.parametrize("who", EVERYBODY)
def test_directories_link_what_everybody_can_fetch(askers: dict[str, Any], who: str) -> None:
    ask, root = askers[who], "/api/images/raw/"
    assert links(ask(root)) == ["friend/", "owner/"]
    assert links(ask(root + "owner/")) == [
        "../", "SHA256SUMS", "alma", "alma.sha256", "both", "both.sha256", "kvm/",
    ]  # fmt: skip
    assert links(ask(root + "owner/kvm/")) == ["../", "both", "both.sha256"]
    line = next(n for n in ask(root + "owner/").text.splitlines() if 'href="alma"' in n)
    assert re.search(r"</a> +\d{4}-\d\d-\d\d \d\d:\d\d +4000$", line)


@pytest.mark.parametrize("state", ["fetchable", "expired", "empty", "private"])
def test_a_directory_has_no_address_twice_nor_one_that_means_something_else(
    daemon: Daemon, state: str
) -> None:
    """An image that is called like a checksum is served first, whatever there is to serve."""
    odd = daemon.newcomer()
    for name in ("foo", "both", "foo.sha256x", "foob"):
        make(odd, name, {"xen": name.encode(), "kvm": name.encode() * 2})
    fields = {"expired": {"expires": "2020-01-01"}, "private": {"unauthenticated_access": "false"}}
    for name in ("foo.sha256", "SHA256SUMS", "both.sha256"):
        make(odd, name, {"xen": b"" if state == "empty" else b"!"}, **fields.get(state, {}))
    raw = f"/api/images/raw/{odd.name}/"
    for directory in (raw, f"{raw}kvm/"):
        found = links(daemon.nobody.ask("GET", directory))
        assert len(found) == len(set(found)), found
        for name in found:
            answer = daemon.nobody.ask("GET", directory + name if name != "../" else raw)
            assert answer.status == 200, name
    shown = links(daemon.nobody.ask("GET", raw))
    assert ("foo.sha256" in shown) is ("SHA256SUMS" in shown) is (state in ("fetchable", "private"))
    assert {"foo.sha256x.sha256", "foob.sha256", "kvm/"} <= set(shown)
    if state == "fetchable":
        assert daemon.nobody.ask("GET", f"{raw}foo.sha256").body == b"!"
    assert daemon.admin.ask("DELETE", f"/api/users/{odd.name}").status == 200


def test_an_address_has_the_reading_that_it_had(daemon: Daemon) -> None:
    own = daemon.newcomer()
    make(own, own.name, {"xen": b"named like me"}, unauthenticated_access="false")
    make(own, "raw", {"xen": b"called raw"}, unauthenticated_access="false")
    raw = "/api/images/raw"
    assert own.ask("GET", raw).json["name"] == "raw"
    assert own.ask("GET", f"{raw}/raw").body == b"called raw"
    assert own.ask("GET", f"{raw}/{own.name}").body == b"named like me"
    assert own.ask("POST", f"{raw}/share/user/friend").status == 200
    # Nothing of it is public, so there is no directory; and one is nothing to write to.
    assert own.ask("GET", f"{raw}/{own.name}/").status == 404
    for path in (f"{raw}/", f"{raw}/{own.name}/", f"{raw}/{own.name}/xen/"):
        assert own.ask("PUT", path, body=b"lies").status == 404
        assert own.ask("DELETE", path).status == 404
    for path in (
        f"{raw}//", f"{raw}/{own.name}//", f"{raw}/a/b/c/", "/api/images/", "/api/users/", "/api/",
        f"{raw}/./", f"{raw}/../", f"{raw}/%2F/", "/public/",
    ):  # fmt: skip
        assert own.ask("GET", path).status == 404, path
    assert own.ask("GET", f"{raw}/{own.name}").body == b"named like me"
    assert daemon.admin.ask("DELETE", f"/api/users/{own.name}").status == 200


@pytest.fixture(params=["https", "http"])
def place(request: pytest.FixtureRequest, daemon: Daemon, owner: Person) -> str:
    """Where everybody finds all public images."""
    return f"{daemon.url if request.param == 'https' else daemon.plain}/api/images/raw/"


def rclone(daemon: Daemon, url: str, *words: str) -> str:
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed: make test as root installs it")
    authority = next(daemon.ca_directory.glob("*.0"))
    done = subprocess.run(
        ["rclone", "--config", "/dev/null", "--ca-cert", str(authority), "--http-url", url, *words],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


TREE = {
    "friend/disk.sha256": b"called so", "owner/alma": BYTES["alma"], "owner/both": BYTES["xen"],
    "owner/kvm/both": BYTES["kvm"],
}  # fmt: skip


def test_rclone_lists_and_copies_them(daemon: Daemon, place: str, tmp_path: Path) -> None:
    listed = rclone(daemon, place, "lsf", "-R", "--files-only", ":http:").split()
    sums = {f"{name}.sha256" for name in TREE} | {"owner/SHA256SUMS", "friend/SHA256SUMS"}
    assert sorted(listed) == sorted({*TREE, *sums})
    assert rclone(daemon, place + "owner/", "lsf", ":http:").split() == [
        "SHA256SUMS", "alma", "alma.sha256", "both", "both.sha256", "kvm/",
    ]  # fmt: skip
    sizes = rclone(daemon, place, "lsf", "-R", "--format", "ps", "--files-only", ":http:")
    told = dict(one.split(";") for one in sizes.split())
    for name, content in TREE.items():
        assert int(told[name]) == len(content)
    rclone(daemon, place, "copy", ":http:", str(tmp_path))
    for name, content in TREE.items():
        assert (tmp_path / name).read_bytes() == content
    assert len(checked(tmp_path / "owner", "SHA256SUMS")) == 3


def test_wget_mirrors_them(daemon: Daemon, place: str, tmp_path: Path) -> None:
    subprocess.run(
        ["wget", "-q", "--recursive", "--no-parent", "-nH", "--cut-dirs=3",
         f"--ca-directory={daemon.ca_directory}", place],
        cwd=tmp_path, check=True, timeout=120,
    )  # fmt: skip
    for name, content in TREE.items():
        assert (tmp_path / name).read_bytes() == content
    for user in ("owner", "friend"):
        assert checked(tmp_path / user, "SHA256SUMS")
    assert not (tmp_path / "owner" / "private").exists()
