"""Downloads that are answered by the address of their bytes in the store."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from repoman.client.part_names import part_of
from repoman.model import Image
from repoman.policy import Redirect, may_redirect
from repoman.resources.files import ELSEWHERE
from repoman.resources.headers import takes_redirect
from tests.ceph import Ceph
from tests.gateway import tls_gateway
from tests.server import ROOT, Answer, Daemon, Person, ask_plain, free_ports
from tests.test_monitoring import number

CONTENT = bytes(range(256)) * 4000
TAKES = {"Prefer": "redirect"}
NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("prefer", "takes"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("redirect", True),
        ("Redirect", True),
        ("wait=10, redirect; quickly", True),
        ('redirect=""', True),  # RFC 7240 section 2: as if there were no value
        ("redirect=no", False),
        ('redirect = "no"', False),
        ("redirect=no, redirect", False),  # and the first one counts
        ("redirect=perhaps", None),
        ("no-redirect", None),
    ],
)
def test_what_a_client_says_of_redirects_is_read_as_rfc_7240_has_it(
    prefer: str | None, takes: bool | None
) -> None:
    assert takes_redirect(prefer) is takes


@pytest.mark.parametrize(
    ("redirect", "public", "who"),
    [
        ("no", True, set()),
        ("no", False, set()),
        ("public", True, {True, None}),
        ("public", False, set()),
        ("all", True, {True, None}),
        ("all", False, {True}),
    ],
)
def test_nobody_is_sent_to_the_store_who_did_not_agree_unless_the_image_is_public(
    redirect: Redirect, public: bool, who: set[bool | None]
) -> None:
    image = Image(1, "0" * 32, "image", 1, "alice", NOW, unauthenticated_access=public)
    assert {takes for takes in (True, False, None) if may_redirect(redirect, image, takes)} == who


class Repository(Daemon):
    """A daemon with its bytes in Ceph, and monitoring."""

    def __init__(self, directory: Path, **storage: Any) -> None:
        [self.monitoring] = free_ports(1)
        super().__init__(
            directory, storage=storage,
            metrics={"endpoint": f"tcp:{self.monitoring}:interface=127.0.0.1"},
        )  # fmt: skip

    def redirected(self) -> float:
        """How many downloads were answered by an address."""
        shown = ask_plain(f"http://127.0.0.1:{self.monitoring}/metrics").text
        name = 'repoman_requests_total{method="GET",status="307"}'
        return number(shown, name) if name in shown else 0.0

    def entries(self) -> list[str]:
        """The lines of the access log."""
        return (self.directory / "state" / "log" / "access.log").read_text().splitlines()


@pytest.fixture(scope="module")
def repository(ceph: Ceph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """It sends all who take that to a store that speaks TLS, and everybody for public images."""
    [port] = free_ports(1)
    place = tmp_path_factory.mktemp("redirects")
    storage = {**ceph.storage(ceph.bucket()), "endpoint": f"https://localhost:{port}"}
    made = Repository(place, **storage, redirect="all", ca_file=place / "ca.pem")
    (place / "ca.pem").write_bytes(made.grid.ca.pem())
    with tls_gateway(ceph, port, place / "hostcert.pem", place / "hostkey.pem"), made.running():
        yield made


@pytest.fixture
def alice(repository: Repository) -> Person:
    """Somebody with a private image and a public one."""
    alice = repository.newcomer()
    for name, public in (("private", False), ("public", True)):
        alice.ask("POST", "/api/images", form={"name": name, "unauthenticated_access": public})
        assert alice.ask("PUT", f"/api/images/raw/{name}", body=CONTENT).status == 200
    return alice


def fetched(location: str, repository: Daemon, **headers: str) -> Answer:
    """What anybody gets from the store: without a certificate."""
    parts = urlsplit(location)
    context = ssl.create_default_context(cafile=str(repository.directory / "ca.pem"))
    connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        reply = connection.getresponse()
        return Answer(reply.status, reply.reason, dict(reply.getheaders()), reply.read())
    finally:
        connection.close()


def test_whoever_takes_it_gets_the_address_of_the_right_bytes(
    repository: Repository, alice: Person
) -> None:
    before = repository.redirected()
    answer = alice.ask("GET", "/api/images/raw/private", headers=TAKES)
    assert (answer.status, answer.body) == (307, ELSEWHERE)
    assert answer.headers["Preference-Applied"] == "redirect"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Vary"] == "Prefer"
    digest = hashlib.sha256(CONTENT)
    assert answer.headers["Etag"] == f'"{digest.hexdigest()}"'
    assert base64.b64encode(digest.digest()).decode() in answer.headers["Repr-Digest"]
    assert not {"Content-Range", "Content-Disposition"} & answer.headers.keys()
    found = fetched(answer.headers["Location"], repository)
    assert (found.status, found.body) == (200, CONTENT)
    assert found.headers["Content-Disposition"] == 'attachment; filename="private"'
    part = fetched(answer.headers["Location"], repository, Range="bytes=100-199")
    assert (part.status, part.body) == (206, CONTENT[100:200])
    assert repository.redirected() == before + 1


def test_an_address_is_good_for_this_file_five_minutes_and_reading(
    repository: Repository, alice: Person
) -> None:
    location = alice.ask("GET", "/api/images/raw/private", headers=TAKES).headers["Location"]
    query = parse_qs(urlsplit(location).query)
    assert query["X-Amz-Expires"] == ["300"]
    other = location.replace("X-Amz-Expires=300", "X-Amz-Expires=3000")
    assert fetched(other, repository).status == 403
    public = alice.ask("GET", "/api/images/raw/public", headers=TAKES).headers["Location"]
    moved = urlsplit(location)._replace(path=urlsplit(public).path).geturl()
    assert fetched(moved, repository).status == 403
    bare = location.partition("?")[0]
    assert fetched(bare, repository).status == 403
    done = subprocess.run(
        ["curl", "--silent", "--cacert", repository.directory / "ca.pem", "--upload-file",
         repository.config, "--output", "/dev/null", "--write-out", "%{http_code}", location],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "403"


def test_who_says_nothing_is_served_what_is_not_public(
    repository: Repository, alice: Person
) -> None:
    for headers in ({}, {"Prefer": "redirect=no"}, {"Prefer": "return=minimal"}):
        answer = alice.ask("GET", "/api/images/raw/private", headers=headers)
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer.headers["Vary"] == "Prefer"


def test_a_public_image_is_at_its_address_for_everybody_but_who_says_no(
    repository: Repository, alice: Person
) -> None:
    path = f"/api/images/raw/{alice.name}/public"
    for answer in (repository.nobody.ask("GET", path), ask_plain(repository.plain + path)):
        assert answer.status == 307
        assert "Preference-Applied" not in answer.headers
        assert fetched(answer.headers["Location"], repository).body == CONTENT
    answer = repository.nobody.ask("GET", path, headers={"Prefer": "redirect=no"})
    assert (answer.status, answer.body) == (200, CONTENT)


def test_what_refuses_a_download_refuses_its_address(repository: Repository, alice: Person) -> None:
    path, bob = f"/api/images/raw/{alice.name}/private", repository.newcomer()
    assert repository.nobody.ask("GET", path, headers=TAKES).status == 403
    assert bob.ask("GET", path, headers=TAKES).status == 404
    alice.ask("POST", f"/api/images/private/share/user/{bob.name}")
    assert bob.ask("GET", path, headers=TAKES).status == 307
    etag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    for status, field, value in (
        (304, "If-None-Match", etag),
        (412, "If-Match", '"other"'),
        (416, "Range", f"bytes={len(CONTENT)}-"),
        (307, "Range", "bytes=5-"),
        # The store would hear it too, and knows when bytes came, not who got their name since.
        (200, "If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"),
    ):
        answer = alice.ask("GET", path, headers={**TAKES, field: value})
        assert answer.status == status
        assert ("Location" in answer.headers) == (status == 307)
    head = alice.ask("HEAD", path, headers=TAKES)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    repository.admin.ask("POST", f"/api/users/{bob.name}", form={"suspended": "true"})
    assert bob.ask("GET", path, headers=TAKES).status == 403
    alice.ask("POST", "/api/images/private", form={"expires": "2001-01-01"})
    assert alice.ask("GET", path, headers=TAKES).status == 410


@pytest.mark.parametrize("how", ["missing", "other bytes"])
def test_damage_is_told_and_not_sent_to(
    ceph: Ceph, repository: Repository, alice: Person, tmp_path: Path, how: str
) -> None:
    location = alice.ask("GET", "/api/images/raw/private", headers=TAKES).headers["Location"]
    place = "s3:/" + urlsplit(location).path
    if how == "missing":
        ceph.s3cmd("del", place)
    else:
        (tmp_path / "other").write_bytes(CONTENT[::-1])
        ceph.s3cmd("put", str(tmp_path / "other"), place)
    answer = alice.ask("GET", "/api/images/raw/private", headers=TAKES)
    assert answer.status == 500
    assert "Location" not in answer.headers


def test_the_log_says_that_it_was_redirected_and_never_to_where(
    repository: Repository, alice: Person
) -> None:
    alice.ask("GET", "/api/images/raw/private", headers=TAKES)
    line = repository.entries()[-1]
    assert " status=307 " in line
    assert f" bytes={len(ELSEWHERE)} " in line
    assert base64.b64encode(hashlib.sha256(CONTENT).digest()).decode() in line
    for log in (repository.log, repository.directory / "state" / "log" / "access.log"):
        assert "amz" not in log.read_text().lower()


@pytest.mark.parametrize("streams", ["1", "4"])
def test_our_program_takes_the_bytes_from_the_store(
    repository: Repository, alice: Person, tmp_path: Path, streams: str
) -> None:
    begun = len(repository.entries())
    part_of(tmp_path / "out", hashlib.sha256(CONTENT).hexdigest()).write_bytes(CONTENT[:100_000])
    done = subprocess.run(
        [sys.executable, "-m", "repoman.cli", "-H", repository.url, "get", "private",
         "-j", streams, "-d", tmp_path / "out"],
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
             "X509_USER_PROXY": str(alice.proxy), "X509_CERT_DIR": str(repository.ca_directory)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert (tmp_path / "out").read_bytes() == CONTENT
    said = [line for line in repository.entries()[begun:] if "/raw/" in line]
    assert {line.partition(" status=")[2][:3] for line in said} == {"200", "307"}
    assert all(" method=HEAD " in line for line in said if " status=200 " in line)


def test_curl_follows_as_the_page_says(repository: Repository, alice: Person) -> None:
    url = f"{repository.url}/api/images/raw/{alice.name}/public"
    done = subprocess.run(
        ["curl", *repository.nobody.curl, "--fail", "--location", url],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == CONTENT


def test_who_comes_over_tls_is_never_sent_to_a_store_in_the_clear(
    ceph: Ceph, tmp_path: Path
) -> None:
    storage = ceph.storage(ceph.bucket(), redirect="all")
    with Repository(tmp_path, **storage).running() as repository:
        admin = repository.admin
        for name, public in (("private", False), ("public", True)):
            admin.ask("POST", "/api/images", form={"name": name, "unauthenticated_access": public})
            admin.ask("PUT", f"/api/images/raw/{name}", body=CONTENT)
            assert admin.ask("GET", f"/api/images/raw/{name}", headers=TAKES).status == 200
        path = f"{repository.plain}/api/images/raw/{admin.name}/"
        assert ask_plain(path + "public").status == 307
        assert ask_plain(path + "private", headers=TAKES).status == 403


def test_a_plain_endpoint_behind_tls_sends_nobody_into_the_clear(
    ceph: Ceph, tmp_path: Path
) -> None:
    storage = ceph.storage(ceph.bucket(), redirect="all")
    repository = Repository(tmp_path, **storage)
    text = repository.config.read_text()
    shown = "http_url = https://public.example.org"
    repository.config.write_text(re.sub(r"(?m)^http_url = .*$", shown, text))
    with repository.running():
        admin = repository.admin
        admin.ask("POST", "/api/images", form={"name": "one", "unauthenticated_access": True})
        admin.ask("PUT", "/api/images/raw/one", body=CONTENT)
        answer = ask_plain(f"{repository.plain}/api/images/raw/{admin.name}/one")
        assert (answer.status, answer.body) == (200, CONTENT)


def test_a_directory_has_no_addresses(tmp_path: Path) -> None:
    with Repository(tmp_path, redirect="all").running() as repository:
        admin = repository.admin
        admin.ask("POST", "/api/images", form={"name": "one", "unauthenticated_access": True})
        admin.ask("PUT", "/api/images/raw/one", body=CONTENT)
        answer = admin.ask("GET", "/api/images/raw/one", headers=TAKES)
        assert (answer.status, answer.body) == (200, CONTENT)
