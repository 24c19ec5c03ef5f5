"""Whatever people fetch images with gets the right bytes, goes on, and shows a refusal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from attrs import evolve, frozen

from tests.end_to_end.conftest import MIB
from tests.end_to_end.fetchers import (
    FETCHERS,
    SAY_NO_WORDS,
    UPLOADERS,
    WITHOUT_CERTIFICATES,
    Said,
    Who,
    aria2,
    curl,
    httpie,
    run,
    wget,
)
from tests.server import Daemon, Person

CONTENT = os.urandom(5 * MIB) + bytes(MIB) + os.urandom(3 * 512)  # qemu counts in sectors
WITH_CERTIFICATES = sorted(FETCHERS.keys() - WITHOUT_CERTIFICATES)


@frozen
class Images:
    """Where two images of one content are, and who may have them."""

    owner: Person
    me: Who
    plain: str
    public: str
    private: str

    @property
    def nobody(self) -> Who:
        return evolve(self.me, proxy=None)


@pytest.fixture(scope="module")
def images(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """An image that is public, one that is not, and one that has expired."""
    place, alice = tmp_path_factory.mktemp("fetchers"), daemon.newcomer()
    (ca := place / "ca.pem").write_bytes(
        b"".join(path.read_bytes() for path in sorted(daemon.ca_directory.glob("*.0")))
    )
    for name, public in {"open": "true", "closed": "false", "gone": "true"}.items():
        form = {"name": name, "unauthenticated_access": public}
        assert alice.ask("POST", "/api/images", form=form).status == 201
        assert alice.ask("PUT", f"/api/images/raw/{name}", body=CONTENT).status == 200
    alice.ask("POST", "/api/images/gone", form={"expires": "2020-01-01"})
    raw = f"/api/images/raw/{alice.name}"
    return Images(
        alice, Who(alice.proxy, ca, place), f"{daemon.plain}{raw}/open",
        f"{daemon.url}{raw}/open", f"{daemon.url}{raw}/closed",
    )  # fmt: skip


@pytest.mark.parametrize("name", FETCHERS)
def test_a_public_image_comes_whole_by_http_and_https(
    images: Images, tmp_path: Path, name: str
) -> None:
    # An empty query is what some clients append to every address.
    ending = "" if name == "axel" else "?"
    for number, url in enumerate([images.plain, images.public + ending]):
        out = tmp_path / f"out{number}"
        said = FETCHERS[name](images.nobody, url, out)
        assert said.well, said.text
        assert out.read_bytes() == CONTENT


@pytest.mark.parametrize("name", WITH_CERTIFICATES)
def test_a_private_image_comes_whole_with_a_proxy(
    images: Images, tmp_path: Path, name: str
) -> None:
    said = FETCHERS[name](images.me, images.private, tmp_path / "out")
    assert said.well, said.text
    assert (tmp_path / "out").read_bytes() == CONTENT


@pytest.mark.parametrize("name", FETCHERS)
def test_a_refusal_is_a_failure_that_says_why_where_the_program_lets_it(
    images: Images, tmp_path: Path, name: str
) -> None:
    expired = images.public.removesuffix("open") + "gone"
    for number, (url, status, words) in enumerate([
        (images.private, "403", "certificate"), (expired, "410", "expired"),
    ]):  # fmt: skip
        out = tmp_path / f"out{number}"
        said = FETCHERS[name](images.nobody, url, out)
        if name == "lynx":  # it knows no failure, and shows what the server says
            assert words in out.read_text()
            continue
        assert not said.well
        if name not in SAY_NO_WORDS:
            assert status in said.text
            assert words in said.text


@pytest.mark.parametrize("name", UPLOADERS)
def test_what_is_uploaded_is_what_is_stored(
    daemon: Daemon, images: Images, tmp_path: Path, name: str
) -> None:
    (source := tmp_path / "disk.img").write_bytes(name.encode() + CONTENT)
    image, owner = f"put-{name}", images.owner
    assert owner.ask("POST", "/api/images", form={"name": image}).status == 201
    url = f"{daemon.url}/api/images/raw/{owner.name}/{image}"
    said = UPLOADERS[name](images.me, url, source)
    assert said.well, said.text
    assert owner.ask("GET", url).body == source.read_bytes()
    said = UPLOADERS[name](images.nobody, url, source)
    assert not said.well
    assert "certificate" in said.text or name == "curl"
    assert owner.ask("GET", url).body == source.read_bytes()


def resumed_by_requests(who: Who, url: str, out: Path) -> Said:
    requests = pytest.importorskip("requests")
    there = out.stat().st_size
    answer = requests.get(
        url, headers={"Range": f"bytes={there}-"}, cert=str(who.proxy), verify=str(who.ca)
    )
    assert answer.headers["Content-Range"] == f"bytes {there}-{len(CONTENT) - 1}/{len(CONTENT)}"
    with out.open("ab") as file:
        file.write(answer.content)
    return Said(answer.status_code == 206, answer.reason)


RESUMED = {
    "curl -C -": lambda who, url, out: curl(who, url, out, "-C", "-"),
    "wget -c": lambda who, url, out: wget(who, url, out, "-c"),
    "http --continue": lambda who, url, out: httpie(who, url, out, "--continue"),
    "requests": resumed_by_requests,
}


@pytest.mark.parametrize("there", [1, 3 * MIB + 7, 5 * MIB + 100])
@pytest.mark.parametrize("how", RESUMED)
def test_a_fetch_goes_on_where_it_was_cut(
    images: Images, tmp_path: Path, how: str, there: int
) -> None:
    # Other bytes than the image's: to see that the rest came, and nothing else.
    mark = b"\xff" * there
    (out := tmp_path / "out").write_bytes(mark)
    said = RESUMED[how](images.me, images.private, out)
    assert said.well, said.text
    assert out.read_bytes() == mark + CONTENT[there:]


@pytest.mark.parametrize("there", [1, 3 * MIB + 7, 5 * MIB + 100])
def test_aria2_goes_on_and_holds_the_whole_against_our_digest(
    images: Images, tmp_path: Path, there: int
) -> None:
    (out := tmp_path / "out").write_bytes(CONTENT[:there])
    said = aria2(images.me, images.private, out, "-c")
    assert said.well, said.text
    assert out.read_bytes() == CONTENT
    (wrong := tmp_path / "wrong").write_bytes(b"\xff" * there)
    said = aria2(images.me, images.private, wrong, "-c")
    assert not said.well or wrong.read_bytes() == CONTENT


UNCHANGED = {
    "curl -z": lambda who, url, out: curl(who, url, out, "-R", "-z", str(out)),
    "curl --etag-compare": lambda who, url, out: curl(
        who, url, out, "--etag-save", f"{out}.tag", "--etag-compare", f"{out}.tag"
    ),
    "wget -N": lambda who, url, out: run(
        "wget",
        "-nv",
        "-N",
        f"--ca-certificate={who.ca}",
        *who.shown("--certificate", "--private-key", "{0}={1}"),
        "-P",
        out.parent,
        url,
    ),
    "aria2c --conditional-get": lambda who, url, out: aria2(
        who, url, out, "--conditional-get=true", "--allow-overwrite=true"
    ),
}


@pytest.mark.parametrize("how", UNCHANGED)
def test_what_has_not_changed_is_not_fetched_again_and_what_has_is(
    daemon: Daemon, images: Images, tmp_path: Path, how: str
) -> None:
    image, owner = f"kept-{list(UNCHANGED).index(how)}", images.owner
    owner.ask("POST", "/api/images", form={"name": image})
    url, out = f"{daemon.url}/api/images/raw/{owner.name}/{image}", tmp_path / image
    owner.ask("PUT", url, body=b"the first")
    (tmp_path / f"{image}.tag").touch()
    assert UNCHANGED[how](images.me, url, out).well
    assert out.read_bytes() == b"the first"
    with out.open("r+b") as file:  # a mark of ours, of the same length and time
        times = os.fstat(file.fileno())
        file.write(b"not asked")
    os.utime(out, ns=(times.st_atime_ns, times.st_mtime_ns))
    UNCHANGED[how](images.me, url, out)
    assert out.read_bytes() == b"not asked"
    os.utime(out, (1_000_000_000, 1_000_000_000))
    owner.ask("PUT", url, body=b"the second")
    assert UNCHANGED[how](images.me, url, out).well
    assert out.read_bytes() == b"the second"


def test_a_look_costs_no_bytes_and_tells_the_length(images: Images, tmp_path: Path) -> None:
    said = curl(images.me, images.private, tmp_path / "head", "-I")
    assert said.well, said.text
    assert f"content-length: {len(CONTENT)}" in (tmp_path / "head").read_text().lower()
    said = wget(images.me, images.private, tmp_path / "spider", "--spider", "--server-response")
    assert said.well, said.text
    assert f"Content-Length: {len(CONTENT)}" in said.text


def test_four_segments_at_a_time_are_the_whole(images: Images, tmp_path: Path) -> None:
    for number in range(3):
        said = aria2(images.me, images.private, tmp_path / f"out{number}", "--file-allocation=none")
        assert said.well, said.text
        assert (tmp_path / f"out{number}").read_bytes() == CONTENT


def test_an_image_is_never_redirected_wrapped_or_sent_by_another_protocol(
    images: Images, tmp_path: Path
) -> None:
    common = ["curl", "-sS", *images.owner.curl, "--http2", "--compressed", "-D", "-"]
    told = subprocess.run(
        [*common, "-o", tmp_path / "out", images.private], check=True, capture_output=True,
        text=True, timeout=60,
    ).stdout.lower()  # fmt: skip
    assert told.startswith("http/1.1 200 ok")
    assert "content-encoding" not in told
    assert "location:" not in told
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_no_fetcher_left_a_traceback_in_the_log(daemon: Daemon) -> None:
    assert "Traceback" not in daemon.log.read_text()
