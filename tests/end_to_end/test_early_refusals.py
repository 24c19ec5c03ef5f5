"""A refusal before or in a body is read by every client, whatever it is still sending."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MIB
from tests.ledger import LateDaemon, Ledger
from tests.server import ROOT, Person

Client = Callable[[Person, str, Path, bool], tuple[int, str]]
"""Puts a file, chunked or not; answers what the server said: status and text."""

SIZE = 48 * MIB
TRIES = 5


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon with little room."""
    limits = {"max_upload": "40MiB", "quota": "32MiB"}
    with LateDaemon(tmp_path_factory.mktemp("refusals"), limits=limits).running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def by_curl(person: Person, url: str, file: Path, chunked: bool) -> tuple[int, str]:
    more = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    done = subprocess.run(
        ["curl", *person.curl, "-H", "Expect:", *more, "-T", file, "-w", "\n%{http_code}", url],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


def by_http_client(person: Person, url: str, file: Path, chunked: bool) -> tuple[int, str]:
    daemon = person.daemon
    if url.startswith("https"):
        connection = person.connection()
    else:
        connection = http.client.HTTPConnection("127.0.0.1", daemon.http, timeout=60)
    path = url.removeprefix(daemon.url).removeprefix(daemon.plain)
    connection.putrequest("PUT", path)
    if chunked:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(SIZE))
    connection.endheaders()
    try:
        with file.open("rb") as source:
            while block := source.read(MIB):
                connection.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
    except OSError:
        pass  # it was told to stop; what matters is whether it can still read why
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


TREQ = """
import sys
from datetime import datetime, timezone
from pathlib import Path
import treq
from twisted.internet import defer, task
from twisted.web.client import Agent
from repoman.gsi.credential import ClientCredential
from repoman.tls import ClientTLS

async def main(reactor):
    url, file, proxy, authorities = sys.argv[1:]
    now = datetime.now(timezone.utc)
    shown = ClientCredential.read(Path(proxy), Path(proxy), now=now) if proxy else None
    agent = Agent(reactor, ClientTLS(shown, Path(authorities)))
    with open(file, "rb") as source:
        answer = await treq.request("PUT", url, data=source, agent=agent)
        print(await answer.text(), answer.code, sep="\\n", end="")

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""


def by_treq(person: Person, url: str, file: Path, chunked: bool) -> tuple[int, str]:
    if chunked:
        pytest.skip("treq sends a file with its length")
    place = [str(person.proxy or ""), str(person.daemon.ca_directory)]
    done = subprocess.run(
        [sys.executable, "-c", TREQ, url, str(file), *place],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not done.returncode, done.stderr
    text, _, status = done.stdout.rpartition("\n")
    return int(status), text


@pytest.fixture(params=[by_curl, by_http_client, by_treq])
def client(request: pytest.FixtureRequest) -> Client:
    put: Client = request.param
    return put


def always(put: Client, person: Person, url: str, file: Path, status: int, reason: str) -> None:
    """The answer arrives at each of several tries."""
    for _ in range(TRIES):
        found, text = put(person, url, file, False)
        assert (found, reason in text) == (status, True), text


def test_nobody_in_particular_is_told_so(own: LateDaemon, large: Path, client: Client) -> None:
    always(client, own.nobody, f"{own.url}/api/images/raw/x/one", large, 403, "certificate")


def test_also_without_tls(own: LateDaemon, large: Path, client: Client) -> None:
    always(client, own.nobody, f"{own.plain}/api/images/raw/x/one", large, 403, "plain HTTP")


def test_a_hypervisor_that_the_image_is_not_for(
    own: LateDaemon, large: Path, client: Client
) -> None:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    always(client, person, f"{own.url}/api/images/raw/kvm/one", large, 409, "not for kvm")


def test_a_file_over_the_limit(own: LateDaemon, large: Path, client: Client) -> None:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    always(client, person, f"{own.url}/api/images/raw/one", large, 413, "at most")


@pytest.mark.parametrize("put", [by_curl, by_http_client])
def test_a_chunked_body_that_outgrows_the_quota_in_its_middle(
    own: LateDaemon, large: Path, put: Client
) -> None:
    person = own.newcomer()
    person.ask("POST", "/api/images", form={"name": "one"})
    for _ in range(TRIES):
        status, text = put(person, f"{own.url}/api/images/raw/one", large, True)
        assert (status, "room for" in text) == (413, True), text
    Ledger(own).check()


@pytest.mark.directory_store
def test_a_full_store(small_disk: Path, tmp_path: Path, large: Path, client: Client) -> None:
    storage = {"directory": small_disk / "blobs"}
    (site := tmp_path / "site").mkdir()
    with LateDaemon(site, storage=storage).running() as daemon:
        daemon.admin.ask("POST", "/api/images", form={"name": "one"})
        always(client, daemon.admin, f"{daemon.url}/api/images/raw/one", large, 507, "full")
        assert daemon.admin.ask("PUT", "/api/images/raw/one", body=b"small").status == 200
