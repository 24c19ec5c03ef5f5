"""A client that writes its whole body before it reads is told why it was refused.

Each is the real program or library, in a process of its own, and sends more than used to be read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crowds import crowd
from tests.end_to_end.conftest import MIB
from tests.end_to_end.test_upload_limit import begin, until_running
from tests.ledger import PROMISED_LAG, LateDaemon
from tests.server import Person

SIZE = 80 * MIB
"""More than what used to be too much (64 MiB)."""

REQUESTS = """
import sys, requests
url, file, pem, authorities = sys.argv[1:]
source = open(file, "rb")
body = iter(lambda: source.read(65536), b"") if {chunked} else source
told = requests.put(url, data=body, cert=pem or None, verify=authorities)
print(told.status_code, told.text, end="")
"""

HTTP_CLIENT = """
import http.client, ssl, sys
from urllib.parse import urlsplit
url, file, pem, authorities = sys.argv[1:]
parts, context = urlsplit(url), ssl.create_default_context(cafile=authorities)
if pem:
    context.load_cert_chain(pem)
connection = (http.client.HTTPSConnection(parts.netloc, context=context)
              if parts.scheme == "https" else http.client.HTTPConnection(parts.netloc))
with open(file, "rb") as source:
    connection.request("PUT", parts.path, source, encode_chunked={chunked})
told = connection.getresponse()
print(told.status, told.read().decode(), end="")
"""

URLLIB = """
import os, ssl, sys, urllib.error, urllib.request
url, file, pem, authorities = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
if pem:
    context.load_cert_chain(pem)
with open(file, "rb") as source:
    length = {{}} if {chunked} else {{"Content-Length": str(os.path.getsize(file))}}
    order = urllib.request.Request(url, source, length, method="PUT")
    try:
        urllib.request.urlopen(order, context=context)
    except urllib.error.HTTPError as told:
        print(told.code, told.read().decode(), end="")
"""

NODE = """
const [url, file, pem, authorities] = process.argv.slice(1), fs = require('fs');
const shown = pem ? {cert: fs.readFileSync(pem), key: fs.readFileSync(pem)} : {};
const trusted = {ca: fs.readFileSync(authorities)};
const order = require(url.split(':')[0]).request(
  url, {method: 'PUT', headers: {'Content-Length': fs.statSync(file).size}, ...shown, ...trusted},
  told => told.on('data', data => process.stdout.write(`${told.statusCode} ${data}`)));
order.on('error', () => {});  // of writing: told is what matters
fs.createReadStream(file).pipe(order);
"""

JAVA = """
import java.net.*; import java.net.http.*; import java.nio.file.*;
class Put {
  public static void main(String[] given) throws Exception {
    var body = HttpRequest.BodyPublishers.ofFile(Path.of(given[1]));
    var order = HttpRequest.newBuilder(URI.create(given[0])).PUT(body).build();
    var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    var told = client.send(order, HttpResponse.BodyHandlers.ofString());
    System.out.print(told.statusCode() + " " + told.body());
  }
}
"""


def python(program: str, chunked: bool = False) -> Callable[[str, Path, str, Path], list[str]]:
    text = program.format(chunked=chunked)
    return lambda url, file, pem, authorities: [
        sys.executable, "-c", text, url, str(file), pem, str(authorities)
    ]  # fmt: skip


def wget(method: str) -> Callable[[str, Path, str, Path], list[str]]:
    how = ["--method", "PUT", "--body-file"] if method == "PUT" else ["--post-file"]

    def command(url: str, file: Path, pem: str, authorities: Path) -> list[str]:
        shown = ["--certificate", pem, "--private-key", pem] if pem else []
        return ["wget", "-S", "--content-on-error", "-O", "-", "--ca-certificate",
                str(authorities), *shown, *how, str(file), url]  # fmt: skip

    return command


def curl(*more: str) -> Callable[[str, Path, str, Path], list[str]]:
    def command(url: str, file: Path, pem: str, authorities: Path) -> list[str]:
        shown = ["--cert", pem] if pem else []
        return ["curl", "-sS", "-w", " %{http_code}", "--cacert", str(authorities), *shown,
                *more, "-T", str(file), url]  # fmt: skip

    return command


def node(url: str, file: Path, pem: str, authorities: Path) -> list[str]:
    return ["node", "-e", NODE, url, str(file), pem, str(authorities)]


def java(url: str, file: Path, pem: str, authorities: Path) -> list[str]:
    program = file.with_name("Put.java")
    program.write_text(JAVA)
    return ["java", str(program), url, str(file)]


CLIENTS = {
    "requests": python(REQUESTS),
    "requests, chunked": python(REQUESTS, chunked=True),
    "http.client": python(HTTP_CLIENT),
    "http.client, chunked": python(HTTP_CLIENT, chunked=True),
    "urllib": python(URLLIB),
    "wget": wget("PUT"),
    "wget --post-file": wget("POST"),
    "curl": curl(),
    "curl without Expect": curl("-H", "Expect:"),
    "curl, chunked": curl("-H", "Expect:", "-H", "Transfer-Encoding: chunked"),
    "node": node,
    "java": java,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateDaemon]:
    """A daemon with little room."""
    limits = {"max_upload": "1GiB", "quota": "32MiB", "connections": 40}
    with LateDaemon(tmp_path_factory.mktemp("blocking"), limits=limits).running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture(scope="module")
def authorities(own: LateDaemon, large: Path) -> Path:
    """All that the daemon's CA directory trusts, in one file."""
    path = large.with_name("authorities.pem")
    found = own.ca_directory.glob("*.0")
    path.write_text("".join(one.read_text() for one in found))
    return path


def cpu_seconds(daemon: LateDaemon) -> float:
    """What the daemon's own process has spent."""
    assert daemon.process is not None
    words = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def told(client: str, url: str, file: Path, person: Person, authorities: Path) -> str:
    """All that the client shows, whatever it thinks of the refusal."""
    command = CLIENTS[client](url, file, str(person.proxy or ""), authorities)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "java"])
def test_a_blocking_client_reads_its_refusal_over_tls(
    own: LateDaemon, large: Path, authorities: Path, client: str
) -> None:
    owner, reader = own.newcomer(), own.newcomer()
    owner.ask("POST", "/api/images", form={"name": "one"})
    url = f"{own.url}/api/images/raw/{owner.name}/one"
    shown = told(client, url, large, reader, authorities)
    status = "400" if client == "wget --post-file" else "404"  # a POST begins a resumable upload
    assert status in shown, shown[-2000:]
    assert "Retrying" not in shown


@pytest.mark.parametrize("client", CLIENTS)
def test_a_blocking_client_reads_its_refusal_without_tls(
    own: LateDaemon, large: Path, authorities: Path, client: str
) -> None:
    shown = told(client, f"{own.plain}/api/images/raw/x/one", large, own.nobody, authorities)
    assert "403" in shown, shown[-2000:]
    assert "plain HTTP" in shown
    assert "Retrying" not in shown


def with_header(line: str) -> str:
    """A program of requests that sends one header more."""
    name, _, value = line.partition(": ")
    return REQUESTS.replace("data=body,", f"data=body, headers={{{{{name!r}: {value!r}}}}},")


REFUSALS = {
    "nobody": ("", "403"),
    "a reader": ("", "403"),
    "read only": ("", "403"),
    "for others": ("", "409"),
    "quota": ("", "413"),
    "too many": ("", "429"),
    "digest": ("Repr-Digest: sha-256=:no:", "400"),
    "condition": ('If-Match: "other"', "412"),
    "part": ("Content-Range: bytes 0-9/10", "400"),
    "a form": ("Content-Type: multipart/form-data; boundary=x", "415"),
    "packed": ("Content-Encoding: gzip", "415"),
}
"""What is wrong with an upload: the header that says so, and the status."""


@contextmanager
def refusing(own: LateDaemon, why: str) -> Iterator[tuple[Person, str]]:
    """Somebody whose upload will be refused, and where they send it."""
    owner, reader = own.newcomer(), own.newcomer()
    owner.ask("POST", "/api/images", form={"name": "one"})
    place, running = f"{owner.name}/one", []
    if why == "a reader":
        assert owner.ask("POST", f"/api/images/one/share/user/{reader.name}").status == 200
    elif why == "read only":
        assert owner.ask("POST", "/api/images/one", form={"read_only": "true"}).status == 200
    elif why == "for others":
        place = "kvm/one"
    elif why == "too many":
        own.admin.ask("POST", f"/api/users/{owner.name}", form={"quota": 2 * SIZE})
        running = [begin(owner, "one") for _ in range(4)]
        until_running(owner, 4)
    try:
        yield {"nobody": own.nobody, "a reader": reader}.get(why, owner), place
    finally:
        for connection in running:
            connection.close()


@pytest.mark.parametrize("client", ["requests", "wget"])
@pytest.mark.parametrize("why", REFUSALS)
def test_whatever_the_refusal_is_it_is_read(
    own: LateDaemon, large: Path, authorities: Path, why: str, client: str
) -> None:
    line, said = REFUSALS[why]
    with refusing(own, why) as (person, place):
        url, pem = f"{own.url}/api/images/raw/{place}", str(person.proxy or "")
        program = python(with_header(line) if line else REQUESTS)
        command = (program if client == "requests" else CLIENTS[client])(
            url, large, pem, authorities
        )
        if client == "wget" and line:
            command += ["--header", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    shown = done.stdout + done.stderr
    assert f"HTTP/1.1 {said}" in shown or done.stdout.startswith(said), shown[-2000:]
    assert "Retrying" not in shown


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_flood_of_refused_bodies_keeps_nobody_out_and_costs_little(
    own: LateDaemon, over_tls: bool
) -> None:
    person, before = own.newcomer(), cpu_seconds(own)
    begun = time.monotonic()
    port, kind = own.https if over_tls else own.http, "a refused body without an end"
    with crowd(port, kind, 45, source="127.0.0.2", plain=not over_tls):
        time.sleep(3)
        answered = sum(person.ask("GET", "/api/whoami").status == 200 for _ in range(40))
    spent, seconds = cpu_seconds(own) - before, time.monotonic() - begun
    assert answered >= 38
    assert spent < 0.5 * seconds
    _, stall = own.latest(begun)
    assert stall < PROMISED_LAG
    assert "Traceback" not in own.log.read_text()
