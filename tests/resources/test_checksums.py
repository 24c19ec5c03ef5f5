"""Checksums beside the bytes: as addresses, as lists, and for the programs that read them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from repoman.resources.checksums import ENDINGS, split_name
from tests.postgres import on_server
from tests.server import Answer, Daemon, Person, ask_plain

BYTES = {name: name.encode() * 1000 for name in ("disk", "xen", "kvm", "other", "own sums")}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hash_of(ending: str, content: bytes) -> str:
    return hashlib.new(ENDINGS[ending], content).hexdigest()


def line(content: bytes, name: str) -> str:
    return f"{sha256(content)}  {name}\n"


def make(owner: Person, name: str, files: dict[str, bytes], **fields: Any) -> None:
    """An image with a file for each hypervisor given; public, unless that is said."""
    form = {"name": name, "unauthenticated_access": "true", "hypervisor": ",".join(files), **fields}
    assert owner.ask("POST", "/api/images", form=form).status == 201
    for hypervisor, content in files.items():
        if content:
            path = f"/api/images/raw/{owner.name}/{hypervisor}/{name}"
            assert owner.ask("PUT", path, body=content).status == 200


@pytest.fixture(scope="module")
def owner(daemon: Daemon) -> Person:
    owner = daemon.newcomer()
    make(owner, "disk", {"xen": BYTES["disk"]})
    make(owner, "both", {"xen": BYTES["xen"], "kvm": BYTES["kvm"]})
    make(owner, "private", {"xen": BYTES["other"]}, unauthenticated_access="false")
    make(owner, "expired", {"xen": BYTES["other"]}, expires="2020-01-01")
    make(owner, "empty", {"xen": b""})
    make(owner, "-n", {"xen": BYTES["other"]})
    return owner


# -- one checksum --

FORMS = [
    ("{owner}/disk", BYTES["disk"]),
    ("{owner}/default/disk", BYTES["disk"]),
    ("{owner}/__hypervisor__/disk", BYTES["disk"]),
    ("{owner}/xen/disk", BYTES["disk"]),
    ("{owner}/both", BYTES["xen"]),
    ("{owner}/kvm/both", BYTES["kvm"]),
    ("{owner}/__hypervisor__/both", BYTES["xen"]),
    ("{owner}/-n", BYTES["other"]),
]
OWN_FORMS = [
    *FORMS, ("disk", BYTES["disk"]), ("kvm/both", BYTES["kvm"]), ("default/both", BYTES["xen"]),
    ("private", BYTES["other"]), ("{owner}/private", BYTES["other"]),
]  # fmt: skip


def check(answer: Answer, head: Answer, name: str, content: bytes) -> None:
    text = line(content, name)
    assert (answer.status, answer.text) == (200, text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Etag"] == f'"{sha256(text.encode())}"'
    same = ("Content-Length", "Etag", "Last-Modified", "Content-Type", "Content-Disposition")
    assert (head.status, head.body) == (200, b"")
    assert [head.headers[n] for n in same] == [answer.headers[n] for n in same]
    assert answer.headers["Content-Disposition"].endswith(f'filename="{name}.sha256"')


@pytest.mark.parametrize(("form", "content"), OWN_FORMS)
def test_a_checksum_is_beside_every_address_of_the_bytes(
    owner: Person, form: str, content: bytes
) -> None:
    path = f"/api/images/raw/{form.format(owner=owner.name)}"
    assert owner.ask("GET", path).body == content
    name = path.rpartition("/")[2]
    check(owner.ask("GET", path + ".sha256"), owner.ask("HEAD", path + ".sha256"), name, content)


@pytest.mark.parametrize(("form", "content"), FORMS)
def test_and_for_everybody_if_the_image_is(
    owner: Person, daemon: Daemon, form: str, content: bytes
) -> None:
    path = f"/api/images/raw/{form.format(owner=owner.name)}.sha256"
    name = path.rpartition("/")[2].removesuffix(".sha256")
    for person in (daemon.nobody, daemon.stranger(), daemon.newcomer()):
        check(person.ask("GET", path), person.ask("HEAD", path), name, content)
    plain = daemon.plain + path
    check(ask_plain(plain), ask_plain(plain, "HEAD"), name, content)


@pytest.mark.parametrize(
    "name", ["private", "expired", "empty", "nothing", "damaged", ".sha256", "disk.sha1", "disk."]
)
def test_a_checksum_is_refused_as_the_bytes_are(owner: Person, daemon: Daemon, name: str) -> None:
    if name == "damaged":
        make(owner, name, {"xen": b"damaged"})
        digest = sha256(b"damaged")
        on_server(daemon.dsn, f"UPDATE blob SET state = 'damaged' WHERE sha256 = '{digest}'")
    path = f"/api/images/raw/{owner.name}/{name}"
    for person in (owner, daemon.nobody, daemon.newcomer(), daemon.stranger()):
        if name == "private" and person is owner:
            continue
        for method in ("GET", "HEAD"):
            bytes_, sum_ = (person.ask(method, path + end) for end in ("", ".sha256"))
            assert (sum_.status, sum_.text) == (bytes_.status, bytes_.text)
            assert sum_.status >= 400
    plain = daemon.plain + path
    assert ask_plain(plain + ".sha256").status == ask_plain(plain).status >= 400
    if name == "damaged":
        assert owner.ask("DELETE", f"/api/images/{name}").status == 200


def when_known(daemon: Daemon, path: str, unknown: str = "") -> Answer:
    """A checksum: a store may know some only a moment after the upload."""
    end = time.monotonic() + 20
    while True:
        answer = daemon.nobody.ask("GET", path)
        if answer.status != 404 or time.monotonic() > end:
            return answer
        assert unknown in answer.text
        time.sleep(0.1)


def test_other_checksums_are_there_where_they_are_known(owner: Person, daemon: Daemon) -> None:
    make(owner, "older", {"xen": b"older"})
    path = f"/api/images/raw/{owner.name}/older"
    for name in ("sha512", "md5"):
        digest, unknown = (
            hashlib.new(name, b"older").hexdigest(),
            f"The {name} of {owner.name}/older",
        )
        answer = when_known(daemon, f"{path}.{name}", f"{unknown} is not known; its sha256 is.\n")
        assert (answer.status, answer.text) == (200, f"{digest}  older\n")
    assert owner.ask("DELETE", "/api/images/older").status == 200


def test_an_image_that_is_called_so_is_served_first(owner: Person, daemon: Daemon) -> None:
    path = f"/api/images/raw/{owner.name}/disk.sha256"
    make(owner, "disk.sha256", {"xen": b"my own"})
    for person in (owner, daemon.nobody):
        assert person.ask("GET", path).body == b"my own"
        assert person.ask("GET", path + ".sha256").text == line(b"my own", "disk.sha256")
    assert owner.ask("GET", "/api/images/raw/disk.sha256").body == b"my own"
    # To those whom it is none of the business of, it is not there.
    private = {"unauthenticated_access": "false"}
    assert owner.ask("POST", "/api/images/disk.sha256", form=private).status == 200
    assert owner.ask("GET", path).body == b"my own"
    assert daemon.nobody.ask("GET", path).text == line(BYTES["disk"], "disk")
    assert daemon.nobody.ask("GET", path + ".sha256").status == 403
    assert owner.ask("DELETE", "/api/images/disk.sha256").status == 200
    assert owner.ask("GET", path).text == line(BYTES["disk"], "disk")


def test_a_checksum_is_nothing_that_can_be_written(owner: Person) -> None:
    path = f"/api/images/raw/{owner.name}/disk.sha256"
    assert owner.ask("PUT", path, body=b"lies").status == 404
    assert owner.ask("POST", path, headers={"Upload-Complete": "?0"}).status == 404
    assert owner.ask("GET", f"/api/images/{owner.name}/disk.sha256").status == 404


def test_a_checksum_is_revalidated_like_a_file(owner: Person, daemon: Daemon) -> None:
    make(owner, "moving", {"xen": b"one"})
    path = f"/api/images/raw/{owner.name}/moving.sha256"
    first = daemon.nobody.ask("GET", path)
    tag, date = first.headers["Etag"], first.headers["Last-Modified"]
    for condition in ({"If-None-Match": tag}, {"If-Modified-Since": date}):
        assert daemon.nobody.ask("GET", path, headers=condition).status == 304
    part = daemon.nobody.ask("GET", path, headers={"Range": "bytes=0-63"})
    assert (part.status, part.text) == (206, sha256(b"one"))
    assert owner.ask("PUT", "/api/images/raw/moving", body=b"two").status == 200
    second = daemon.nobody.ask("GET", path, headers={"If-None-Match": tag})
    assert (second.status, second.text) == (200, line(b"two", "moving"))
    assert owner.ask("DELETE", "/api/images/moving").status == 200


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("a.sha256", ("a", "sha256")), ("a.sha512", ("a", "sha512")), ("a.md5", ("a", "md5")),
        ("a.sha256.md5", ("a.sha256", "md5")), ("a", ("a", None)), (".sha256", (".sha256", None)),
        ("a.SHA256", ("a.SHA256", None)), ("asha256", ("asha256", None)),
    ],
)  # fmt: skip
def test_what_a_name_stands_for(name: str, meant: tuple[str, str | None]) -> None:
    assert split_name(name) == meant


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("way", ["DELETE", "name", "unauthenticated_access", "user"])
def test_the_date_of_a_checksum_is_later_than_what_was_at_its_address(
    daemon: Daemon, way: str, ending: str
) -> None:
    """An image that was called so had the address before, and may have it again."""
    odd, heir = daemon.newcomer(), daemon.newcomer()
    path, record = f"/api/images/raw/{odd.name}/disk{ending}", f"/api/images/{odd.name}/disk"
    make(odd, "disk", {"xen": b"old"})
    assert when_known(daemon, path).status == 200
    make(odd, f"disk{ending}", {"xen": b"mine"})
    before = daemon.nobody.ask("GET", path)
    assert before.body == b"mine"
    how = {"name": "away", "unauthenticated_access": "false"}
    if way == "DELETE":
        assert odd.ask("DELETE", record + ending).status == 200
    elif way == "user":
        form = {"owner": heir.name}
        assert daemon.admin.ask("POST", record + ending, form=form).status == 200
    else:
        assert odd.ask("POST", record + ending, form={way: how[way]}).status == 200

    def look(answer: Answer) -> Answer:
        since = {"If-Modified-Since": answer.headers["Last-Modified"]}
        return daemon.nobody.ask("GET", path, headers=since)

    after = look(before)
    assert (after.status, after.text) == (200, f"{hash_of(ending, b'old')}  disk\n")
    assert look(after).status == 304
    if way == "unauthenticated_access":
        assert odd.ask("POST", record + ending, form={way: "true"}).status == 200
        again = look(after)
        assert (again.status, again.body) == (200, b"mine")
    for person in (odd, heir):
        assert daemon.admin.ask("DELETE", f"/api/users/{person.name}").status == 200


# -- all of a user's --


def sums(owner: Person) -> str:
    return (
        line(BYTES["other"], "-n") + line(BYTES["xen"], "both") + line(BYTES["kvm"], "kvm/both")
        + line(BYTES["disk"], "disk")
    )  # fmt: skip


def test_the_list_has_each_file_that_everybody_can_fetch_once(
    owner: Person, daemon: Daemon
) -> None:
    path = f"/api/images/raw/{owner.name}/SHA256SUMS"
    answers = [person.ask("GET", path) for person in (daemon.nobody, daemon.newcomer(), owner)]
    answers += [ask_plain(daemon.plain + path), owner.ask("GET", "/api/images/raw/SHA256SUMS")]
    for answer in answers:
        assert (answer.status, answer.text) == (200, sums(owner))
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    head = daemon.nobody.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for told in sums(owner).splitlines():
        digest, _, name = told.partition("  ")
        assert sha256(daemon.nobody.ask("GET", urljoin(path, name)).body) == digest


def test_who_publishes_nothing_is_not_told_from_who_is_not_there(daemon: Daemon) -> None:
    secretive = daemon.newcomer()
    make(secretive, "private", {"xen": b"x"}, unauthenticated_access="false")
    for name in (secretive.name, "neverheardof", "kvm", "SHA256SUMS"):
        path = f"/api/images/raw/{name}/SHA256SUMS"
        assert daemon.nobody.ask("GET", path).status == 403
        assert daemon.newcomer().ask("GET", path).status == 404
        assert ask_plain(daemon.plain + path).status == 403
    assert daemon.nobody.ask("GET", "/api/images/raw/SHA256SUMS").status == 403


def test_an_image_called_like_the_list_is_served_first(daemon: Daemon) -> None:
    odd = daemon.newcomer()
    make(odd, "SHA256SUMS", {"xen": BYTES["own sums"]})
    path = f"/api/images/raw/{odd.name}/SHA256SUMS"
    assert daemon.nobody.ask("GET", path).body == BYTES["own sums"]
    assert daemon.nobody.ask("GET", path + ".sha256").text == line(BYTES["own sums"], "SHA256SUMS")


def test_a_list_of_any_length_comes_whole(daemon: Daemon) -> None:
    many, count = daemon.newcomer(), 3000
    on_server(
        daemon.dsn,
        f"""
        INSERT INTO image (owner_id, name, unauthenticated_access)
        SELECT account_id, 'image' || to_char(n, 'FM0000'), true
          FROM account, generate_series(1, {count}) n WHERE user_name = '{many.name}';
        INSERT INTO image_hypervisor (image_id, position, hypervisor)
        SELECT image_id, 1, 'xen' FROM image JOIN account ON owner_id = account_id
         WHERE user_name = '{many.name}';
        INSERT INTO blob (blob, state, size, sha256, sha512, md5, adler32, scrubbed)
        SELECT md5('{many.name}' || image_id), 'present', 1, repeat('0', 64), '', '', '', now()
          FROM image JOIN account ON owner_id = account_id WHERE user_name = '{many.name}';
        INSERT INTO image_file (image_id, hypervisor, blob)
        SELECT image_id, 'xen', md5('{many.name}' || image_id)
          FROM image JOIN account ON owner_id = account_id WHERE user_name = '{many.name}'
        """,
    )
    answer = daemon.nobody.ask("GET", f"/api/images/raw/{many.name}/SHA256SUMS")
    assert answer.text.splitlines() == [f"{'0' * 64}  image{n:04}" for n in range(1, count + 1)]
    assert "Content-Length" not in answer.headers  # not made at one go
    assert daemon.admin.ask("DELETE", f"/api/users/{many.name}").status == 200


# -- those who read them --


@pytest.fixture(params=["https", "http"])
def place(request: pytest.FixtureRequest, daemon: Daemon, owner: Person) -> str:
    """Where everybody finds the owner's images."""
    return f"{daemon.url if request.param == 'https' else daemon.plain}/api/images/raw/{owner.name}"


def wget(daemon: Daemon, into: Path, *words: str) -> None:
    subprocess.run(
        ["wget", "-q", f"--ca-directory={daemon.ca_directory}", *words],
        cwd=into, check=True, timeout=60,
    )  # fmt: skip


def checked(into: Path, name: str) -> list[str]:
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", name], cwd=into, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["disk", "kvm/both", "default/both", "-n"])
def test_sha256sum_checks_what_wget_fetched(
    daemon: Daemon, place: str, tmp_path: Path, name: str
) -> None:
    wget(daemon, tmp_path, f"{place}/{name}", f"{place}/{name}.sha256")
    last = name.rpartition("/")[2]
    assert checked(tmp_path, f"./{last}.sha256") == [f"{last}: OK"]
    (tmp_path / last).write_bytes(b"something else")
    with pytest.raises(subprocess.CalledProcessError):
        checked(tmp_path, f"./{last}.sha256")


def test_sha256sum_checks_all_that_is_listed(daemon: Daemon, place: str, tmp_path: Path) -> None:
    wget(daemon, tmp_path, f"{place}/SHA256SUMS")
    names = [told.split("  ")[1] for told in (tmp_path / "SHA256SUMS").read_text().splitlines()]
    cut = place.count("/") - 2  # the directories of the address above the images
    urls = [f"{place}/{name}" for name in names]
    wget(daemon, tmp_path, "--force-directories", "-nH", f"--cut-dirs={cut}", *urls)
    assert checked(tmp_path, "SHA256SUMS") == [f"{name}: OK" for name in names]


@pytest.fixture(scope="module")
def get_url(daemon: Daemon) -> Iterator[Any]:
    """Ansible's own module."""
    ansible = Path(sys.executable).with_name("ansible")
    if not ansible.exists():
        pytest.skip("ansible-core is not installed")

    def run(**arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [ansible, "localhost", "-i", "localhost,", "-c", "local", "-m", "get_url",
             "-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(arguments)],
            capture_output=True, text=True, timeout=120,
            env={"PATH": "/usr/bin:/bin", "HOME": str(daemon.temporary), "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert " => " in done.stdout, done
        told, text = done.stdout.split(" => ", 1)
        answer: dict[str, Any] = json.loads(text)
        return {"ok": "FAILED" not in told, **answer}

    yield run
    shutil.rmtree(daemon.temporary / ".ansible", ignore_errors=True)


@pytest.mark.parametrize(
    ("name", "sums", "content"),
    [
        ("disk", "disk.sha256", BYTES["disk"]),
        ("kvm/both", "kvm/both.sha256", BYTES["kvm"]),
        ("disk", "SHA256SUMS", BYTES["disk"]),
        ("both", "SHA256SUMS", BYTES["xen"]),
        ("disk", "both.sha256", None),
    ],
)
def test_ansible_checks_what_it_fetched(
    daemon: Daemon, owner: Person, get_url: Any, tmp_path: Path, name: str, sums: str,
    content: bytes | None,
) -> None:  # fmt: skip
    place, copy = f"{daemon.plain}/api/images/raw/{owner.name}", tmp_path / "copy"
    done = get_url(url=f"{place}/{name}", dest=str(copy), checksum=f"sha256:{place}/{sums}")
    assert done["ok"] is (content is not None), done
    if content is not None:
        assert copy.read_bytes() == content
