"""What a body says of itself: the bytes of a file, or something wrapped around them."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import requests

from tests.server import Daemon, Person

BYTES = b"\0the bytes of a disk\n" * 100_000
FORM = "application/x-www-form-urlencoded"
PART = "application/partial-upload"


@pytest.fixture(scope="module")
def owner(daemon: Daemon) -> Person:
    owner = daemon.newcomer()
    assert owner.ask("POST", "/api/images", form={"name": "disk"}).status == 201
    return owner


@pytest.fixture
def unharmed(owner: Person) -> Iterator[Person]:
    """Somebody whose image is the same afterwards, and who has nothing more on the server."""
    assert owner.ask("PUT", "/api/images/raw/disk", body=b"old").status == 200
    yield owner
    assert owner.ask("GET", "/api/images/raw/disk").body == b"old"
    assert owner.ask("GET", "/api/whoami?view=full").json["used"] == 3
    assert owner.ask("GET", "/api/uploads").json == []


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wrapped") / "disk.img"
    path.write_bytes(BYTES)
    return path


WRAPPED: Mapping[str, Mapping[str, str]] = {
    "a browser's form": {"Content-Type": "multipart/form-data; boundary=x"},
    "in capitals": {"Content-Type": "Multipart/Form-Data; boundary=x"},
    "with blanks": {"Content-Type": " multipart / form-data ; boundary=x"},
    "behind a parameter": {"Content-Type": 'text/plain; name="a,b", multipart/mixed'},
    "a mail": {"Content-Type": "multipart/mixed; boundary=x"},
    "related": {"Content-Type": 'multipart/related; boundary=x; type="text/html"'},
    "ranges": {"Content-Type": "multipart/byteranges; boundary=x"},
    "a message": {"Content-Type": "message/rfc822"},
    "http": {"Content-Type": "message/http"},
    "more http": {"Content-Type": "application/http"},
    "two types": {"Content-Type": "application/octet-stream, multipart/mixed"},
    "gzip": {"Content-Encoding": "gzip"},
    "old gzip": {"Content-Encoding": "X-GZIP"},
    "brotli": {"Content-Encoding": "br"},
    "zstd": {"Content-Encoding": "zstd"},
    "deflate": {"Content-Encoding": "deflate"},
    "two codings": {"Content-Encoding": "identity, gzip"},
    "chunks of S3": {"Content-Encoding": "aws-chunked"},
    "an unknown coding": {"Content-Encoding": "something"},
    "base64": {"Content-Transfer-Encoding": "base64"},
}


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_what_is_wrapped_around_a_file_does_not_become_the_image(
    unharmed: Person, daemon: Daemon, method: str, kind: str
) -> None:
    more = {"Upload-Complete": "?1"} if method == "POST" else {}
    path = f"/api/images/raw/{unharmed.name}/disk"
    answer = unharmed.ask(method, path, body=BYTES, headers={**WRAPPED[kind], **more})
    assert answer.status == 415, answer
    assert answer.text.endswith(f": curl -T FILE {daemon.url}{path}\n")
    assert len(answer.text.splitlines()) == 1
    encoded = "Content-Encoding" in WRAPPED[kind]
    assert answer.headers.get("Accept-Encoding") == ("identity" if encoded else None)
    problem = unharmed.ask(
        method, path, body=b"", headers={**WRAPPED[kind], **more, "Accept": "application/json"}
    )
    assert (problem.status, problem.json["field"]) == (415, next(iter(WRAPPED[kind])))


def test_a_part_of_an_upload_is_no_whole_file(unharmed: Person) -> None:
    answer = unharmed.ask(
        "PUT", "/api/images/raw/disk", body=b"part", headers={"Content-Type": PART}
    )
    assert answer.status == 415
    assert "curl -T FILE" in answer.text


@pytest.mark.parametrize("kind", [k for k in WRAPPED if "Content-Type" not in WRAPPED[k]])
def test_neither_a_part_nor_a_form_is_unpacked(unharmed: Person, kind: str) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": "100"}
    begun = unharmed.ask("POST", "/api/images/raw/disk", headers=headers)
    part = {"Content-Type": PART, "Upload-Offset": "0", "Upload-Complete": "?0", **WRAPPED[kind]}
    place = begun.headers["Location"]
    assert unharmed.ask("PATCH", place, body=b"part", headers=part).status == 415
    assert unharmed.ask("HEAD", place).headers["Upload-Offset"] == "0"
    assert unharmed.ask("DELETE", place).status == 204
    form = {"Content-Type": FORM, **WRAPPED[kind]}
    for path in ("/api/images", "/api/images/disk"):
        body = gzip.compress(b"description=packed")
        assert unharmed.ask("POST", path, body=body, headers=form).status == 415
    assert unharmed.ask("GET", "/api/images/disk").json["description"] is None


def test_a_part_that_is_called_otherwise_is_told_how_to_be_called(unharmed: Person) -> None:
    headers = {"Upload-Complete": "?0", "Upload-Length": "100"}
    place = unharmed.ask("POST", "/api/images/raw/disk", headers=headers).headers["Location"]
    for media in ("multipart/form-data; boundary=x", "application/octet-stream", FORM):
        part = {"Content-Type": media, "Upload-Offset": "0", "Upload-Complete": "?0"}
        answer = unharmed.ask("PATCH", place, body=b"part", headers=part)
        assert (answer.status, answer.headers["Accept-Patch"]) == (415, PART)
    assert unharmed.ask("DELETE", place).status == 204


def curl(person: Person, *words: str) -> tuple[int, int, str]:
    """Run it; answer the status, how many bytes of a body it sent, and what it was told."""
    done = subprocess.run(
        ["curl", *person.curl, "-w", "\n%{http_code} %{size_upload}", *words],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    text, _, figures = done.stdout.rpartition("\n")
    status, sent = figures.split()
    return int(status), int(sent), text


@pytest.mark.parametrize("how", [["-X", "PUT"], ["-X", "POST"], []], ids=" ".join)
def test_curls_form_is_refused_before_its_first_byte(
    unharmed: Person, daemon: Daemon, file: Path, how: list[str]
) -> None:
    url = f"{daemon.url}/api/images/raw/disk"
    status, sent, text = curl(unharmed, *how, "-F", f"file=@{file}", url)
    assert (status, sent) == (415, 0)
    assert text.endswith(f"curl -T FILE {url}\n")


def test_a_post_of_a_file_says_what_to_do_instead(
    unharmed: Person, daemon: Daemon, file: Path
) -> None:
    url = f"{daemon.url}/api/images/raw/disk"
    status, sent, text = curl(unharmed, "--data-binary", f"@{file}", url)
    assert (status, sent) == (400, 0)
    assert text.endswith(f"curl -T FILE {url}\n")
    tls = [f"--certificate={unharmed.proxy}", f"--private-key={unharmed.proxy}"]
    done = subprocess.run(
        ["wget", "-qO-", "--content-on-error", f"--ca-directory={daemon.ca_directory}", *tls,
         "--tries=1", f"--post-file={file}", url],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (8, text)


def by_curl(person: Person, url: str, file: Path) -> None:
    assert curl(person, "-X", "PUT", "--data-binary", f"@{file}", url)[0] == 200


def by_curls_own_way(person: Person, url: str, file: Path) -> None:
    assert curl(person, "-T", str(file), url)[0] == 200


def by_wget(person: Person, url: str, file: Path) -> None:
    subprocess.run(
        ["wget", "-qO-", f"--ca-directory={person.daemon.ca_directory}", "--method=PUT",
         f"--certificate={person.proxy}", f"--private-key={person.proxy}",
         f"--body-file={file}", url],
        check=True, timeout=60,
    )  # fmt: skip


def by_requests(media: str | None) -> Callable[[Person, str, Path], None]:
    def put(person: Person, url: str, file: Path) -> None:
        cas = person.daemon.directory / "cas.pem"
        cas.write_bytes(person.daemon.grid.ca.pem())
        headers = {"Content-Type": media} if media else {}
        with file.open("rb") as data:
            answer = requests.put(
                url, data=data, headers=headers, cert=str(person.proxy), verify=str(cas), timeout=60
            )
        assert answer.status_code == 200

    return put


SENDERS = {
    "curl -T": by_curls_own_way,
    "curl --data-binary": by_curl,  # application/x-www-form-urlencoded, and so does wget
    "wget --body-file": by_wget,
    "requests": by_requests(None),
    "httpie's default": by_requests("application/json"),
    "a disk": by_requests("application/x-qemu-disk"),
    "packed, and called so": by_requests("application/gzip"),
    "text": by_requests("text/plain; charset=utf-8"),
    "an odd name": by_requests('application/octet-stream; name="a, multipart/\\"mixed"'),
}


@pytest.mark.parametrize("how", SENDERS)
def test_the_bytes_of_a_file_are_taken_whatever_they_are_called(
    owner: Person, daemon: Daemon, file: Path, how: str
) -> None:
    SENDERS[how](owner, f"{daemon.url}/api/images/raw/disk", file)
    assert owner.ask("GET", "/api/images/raw/disk").body == BYTES
    same = {"Content-Encoding": "identity", "Content-Type": ""}
    assert owner.ask("PUT", "/api/images/raw/disk", body=b"new", headers=same).status == 200


def test_a_packed_file_stays_packed(owner: Person) -> None:
    packed = gzip.compress(BYTES)
    assert owner.ask("POST", "/api/images", form={"name": "disk.gz"}).status == 201
    assert owner.ask("PUT", "/api/images/raw/disk.gz", body=packed).status == 200
    answer = owner.ask("GET", "/api/images/raw/disk.gz", headers={"Accept-Encoding": "gzip"})
    assert (answer.body, answer.headers.get("Content-Encoding")) == (packed, None)
    assert owner.ask("DELETE", "/api/images/disk.gz").status == 200


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "chunked, gzip", "identity"])
def test_no_transfer_coding_but_chunks_is_taken(unharmed: Person, coding: str) -> None:
    connection = unharmed.connection()
    connection.putrequest("PUT", "/api/images/raw/disk")
    connection.putheader("Transfer-Encoding", coding)
    connection.endheaders(b"3\r\nnew\r\n0\r\n\r\n")
    assert connection.getresponse().status in (400, 501)
    connection.close()
