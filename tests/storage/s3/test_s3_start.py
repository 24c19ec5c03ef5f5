"""A store starts where it belongs, with a key that is its own, or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from conftest import Place
from directory_store import Sink
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from unreliable import Proxy
from zope.interface import implementer

from repoman.config import Storage
from repoman.errors import Misconfigured, StoreAbsent, StoreUnavailable, TrustUnreadable
from repoman.interfaces import new_key
from repoman.storage.s3.access import read_access
from repoman.storage.s3.credentials import Credentials, read_credentials
from repoman.storage.s3.store import S3Store
from tests.ceph import Ceph
from tests.credentials import Grid
from tests.s3 import Multiparts, reactor, s3_store
from tests.server import free_ports

KEY = "[default]\naws_access_key_id = KEY\naws_secret_access_key = a%(b)s=c\n"


def credentials(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_credentials_are_read_as_aws_tools_have_them(tmp_path: Path) -> None:
    assert read_credentials(credentials(tmp_path, KEY), {}) == Credentials("KEY", "a%(b)s=c")
    environment = {"AWS_ACCESS_KEY_ID": "K", "AWS_SECRET_ACCESS_KEY": "S", "AWS_SESSION_TOKEN": "T"}
    assert read_credentials(None, environment) == Credentials("K", "S", "T")


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (KEY, 0o640, "can be read by others; run: chmod 600"),
        (KEY, 0o604, "can be read by others"),
        ("[default]\naws_access_key_id = KEY\n", 0o600, "says no aws_access_key_id and"),
        ("[other]\n", 0o600, "under [default]"),
        ("secret", 0o600, "it is not as AWS's tools have it"),
        ("[default]\nsecret", 0o600, "it is not as AWS's tools have it"),
    ],
)
def test_bad_credentials_are_one_line_without_the_secret(
    tmp_path: Path, text: str, mode: int, why: str
) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_credentials(credentials(tmp_path, text, mode), {})
    (line,) = caught.value.mistakes
    assert line.startswith("[storage] credentials: ")
    assert why in line
    assert "secret\n" not in line
    assert "a%(b)s" not in line


def test_missing_credentials_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="AWS_SECRET_ACCESS_KEY"):
        read_credentials(None, {"AWS_ACCESS_KEY_ID": "K"})
    with pytest.raises(Misconfigured, match="No such file"):
        read_credentials(tmp_path / "none", {})


def test_a_secret_is_never_shown() -> None:
    assert "hidden" not in repr(Credentials("K", "hidden", "hidden"))


def test_what_is_signed_is_signed_for_the_region_and_lies_under_the_prefix(ceph: Ceph) -> None:
    link = s3_store(ceph, "abc", region="eu-west-3", prefix="vm/").link("0" * 32, 60, "one")
    assert link is not None
    assert f"/abc/vm/data/00/{'0' * 32}?" in link
    assert "%2Feu-west-3%2Fs3%2Faws4_request" in link


@pytest_twisted.ensureDeferred
async def test_another_repositorys_bucket_is_refused(place: Place) -> None:
    with pytest.raises(StoreUnavailable, match="another repository"):
        await s3_store(place.ceph, place.bucket, repository_id="that").start()
    beside = s3_store(place.ceph, place.bucket, repository_id="that", prefix="beside/")
    await beside.start()
    writer = await beside.create(key := new_key(), 0)
    await writer.commit()
    assert f"/beside/data/{key[:2]}/{key}" in place.ceph.s3cmd(
        "ls", "--recursive", f"s3://{place.bucket}"
    )
    await beside.stop()


@pytest_twisted.ensureDeferred
async def test_where_blobs_should_be_an_empty_bucket_is_refused(ceph: Ceph) -> None:
    with pytest.raises(StoreUnavailable, match="no REPO_ID"):
        await s3_store(ceph, ceph.bucket(), may_create=False).start()


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_with_key_and_bucket_is_said(ceph: Ceph, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        await s3_store(ceph, "nobodys").start()
    wrong = credentials(tmp_path, KEY)
    with pytest.raises(StoreUnavailable, match=r"403 InvalidAccessKeyId.*mend") as caught:
        await s3_store(ceph, ceph.bucket(), credentials=wrong).start()
    assert not isinstance(caught.value, StoreAbsent)


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_another_matter(ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    with pytest.raises(StoreAbsent):
        await s3_store(ceph, "bucket", endpoint=f"http://127.0.0.1:{port}").start()


@pytest_twisted.ensureDeferred
async def test_a_missing_blob_is_not_its_fault_where_all_are_missing(place: Place) -> None:
    place.ceph.s3cmd("del", f"s3://{place.bucket}/REPO_ID")
    with pytest.raises(StoreUnavailable, match="gone"):
        await place.store.open(new_key(), 3)
    with pytest.raises(StoreUnavailable, match="gone"):
        await place.store.digests(new_key(), "sha256")


@implementer(IOpenSSLServerConnectionCreator)
class _HostTLS:
    """The gateway's end, with the host certificate of a grid."""

    def __init__(self, directory: Path) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.use_certificate_chain_file(str(directory / "hostcert.pem"))
        self.context.use_privatekey_file(str(directory / "hostkey.pem"))

    def serverConnectionForTLS(self, protocol: Any) -> Any:
        return SSL.Connection(self.context, None)


@pytest_twisted.ensureDeferred
async def test_only_the_named_host_of_a_trusted_ca_is_spoken_with(
    ceph: Ceph, tmp_path: Path
) -> None:
    grid = Grid(tmp_path)
    grid.host("localhost")
    (authority,) = grid.directory.path.glob("*.0")
    creator = _HostTLS(tmp_path)
    proxy = Proxy(reactor, ceph.port)
    proxy.wrap = lambda factory: TLSMemoryBIOFactory(creator, False, factory)
    proxy.listen()
    port = proxy.endpoint.rpartition(":")[2]

    def store(host: str, ca_file: Path | None) -> S3Store:
        settings = Storage(
            **ceph.storage(bucket, endpoint=f"https://{host}:{port}", ca_file=ca_file)
        )
        access = read_access(settings, {})
        return S3Store(reactor, settings, access, Multiparts(), repository_id="this")

    bucket = ceph.bucket()
    good = store("localhost", authority)
    await good.start()
    writer = await good.create(key := new_key(), 3)
    writer.write(b"abc")
    await writer.commit()
    sink = Sink()
    await (await good.open(key, 3)).write_to(sink, 0, 3)
    assert sink.data == b"abc"
    await good.stop()
    for host, ca_file in (("127.0.0.1", authority), ("localhost", None)):
        asked = len(proxy.lines)
        with pytest.raises(StoreAbsent):
            await store(host, ca_file).start()
        assert len(proxy.lines) == asked
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(TrustUnreadable, match=r"empty\.pem"):
        store("localhost", tmp_path / "empty.pem")
    await proxy.close()
