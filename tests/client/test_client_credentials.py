"""Which credential and which CAs: the first place that names one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from repoman.client.credentials import Named, find_ca_directory, find_credential
from repoman.errors import CredentialProblem, TrustUnreadable

ALL = {
    "X509_USER_PROXY": "env-proxy",
    "X509_USER_CERT": "env-cert",
    "X509_USER_KEY": "env-key",
}
FILES = ("proxy", "cert", "key", "env-proxy", "env-cert", "env-key", "conf-proxy")
NOT_FOR_OTHERS = 4711
"""A uid that has no proxy in /tmp."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).touch()
    globus = tmp_path / ".globus"
    globus.mkdir()
    (globus / "usercert.pem").touch()
    (globus / "userkey.pem").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "environ", "chosen", "source"),
    [
        (Named(proxy="proxy", configured_proxy="conf-proxy"), ALL, ("proxy", "proxy"), "--proxy"),
        (Named(certificate="cert", key="key"), ALL, ("cert", "key"), "--cert"),
        (Named(configured_proxy="conf-proxy"), ALL, ("env-proxy", "env-proxy"), "$X509_USER_PROXY"),
        (
            Named(configured_proxy="conf-proxy"),
            {**ALL, "X509_USER_PROXY": ""},
            ("env-cert", "env-key"),
            "$X509_USER_CERT",
        ),
        (
            Named(configured_proxy="conf-proxy"), {},
            ("conf-proxy", "conf-proxy"), "configuration",
        ),
        (Named(), {}, (".globus/usercert.pem", ".globus/userkey.pem"), "the usual place"),
    ],
    ids=["--proxy", "--cert", "proxy variable", "pair of variables", "configuration", "globus"],
)  # fmt: skip
def test_the_first_that_is_named_wins(
    home: Path, named: Named, environ: dict[str, str], chosen: tuple[str, str], source: str
) -> None:
    found = find_credential(named, {"HOME": str(home), **environ}, NOT_FOR_OTHERS)
    assert found is not None
    assert [str(p).removeprefix(f"{home}/") for p in (found.certificate, found.key)] == [*chosen]
    assert found.source == source


@pytest.mark.parametrize(
    ("named", "environ"),
    [
        (Named(proxy="gone"), ALL),
        (Named(certificate="cert", key="gone"), {}),
        (Named(), {**ALL, "X509_USER_PROXY": "gone"}),
        (Named(), {"X509_USER_CERT": "env-cert", "X509_USER_KEY": "gone"}),
        (Named(configured_proxy="gone"), {}),
    ],
)
def test_what_is_named_but_missing_is_never_skipped(
    home: Path, named: Named, environ: dict[str, str]
) -> None:
    with pytest.raises(CredentialProblem, match=r"There is no file gone, .* run grid-proxy-init"):
        find_credential(named, {"HOME": str(home), **environ}, NOT_FOR_OTHERS)


@pytest.mark.parametrize(
    ("named", "environ", "words"),
    [
        (Named(certificate="cert"), {}, "--cert needs --key"),
        (Named(key="key"), {}, "--key needs --cert"),
        (Named(), {"X509_USER_CERT": "cert"}, r"\$X509_USER_CERT needs \$X509_USER_KEY"),
        (Named(), {"X509_USER_KEY": "key"}, r"\$X509_USER_KEY needs \$X509_USER_CERT"),
    ],
)
def test_half_a_pair_is_an_error(
    home: Path, named: Named, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(CredentialProblem, match=words):
        find_credential(named, {"HOME": str(home), **environ}, NOT_FOR_OTHERS)


@pytest.mark.parametrize(
    ("uid", "environ", "path"),
    [
        (1000, {}, "/tmp/x509up_u1000"),
        (0, {"SUDO_UID": "1000"}, "/tmp/x509up_u1000"),
        (0, {}, "/tmp/x509up_u0"),
        (1001, {"SUDO_UID": "1000"}, "/tmp/x509up_u1001"),
    ],
    ids=["own", "under sudo", "root", "only root is under sudo"],
)
def test_the_proxy_in_tmp_is_the_callers(uid: int, environ: dict[str, str], path: str) -> None:
    exists = Path(path).__eq__
    found = find_credential(Named(), {"HOME": "/nowhere", **environ}, uid, exists)
    assert found is not None
    assert str(found.certificate) == path


def test_nobody_has_a_credential(tmp_path: Path) -> None:
    assert find_credential(Named(), {"HOME": str(tmp_path)}, 1, lambda _: False) is None


def test_cas_are_found_in_their_order(tmp_path: Path) -> None:
    option, variable, own, grid = (tmp_path / n for n in ("o", "v", ".globus/certificates", "g"))
    environ = {"HOME": str(tmp_path), "X509_CERT_DIR": str(variable)}
    for path in (option, variable, own, grid):
        path.mkdir(parents=True)
    assert find_ca_directory(Named(ca_directory=str(option)), environ, grid) == option
    assert find_ca_directory(Named(), environ, grid) == variable
    del environ["X509_CERT_DIR"]
    assert find_ca_directory(Named(), environ, grid) == own
    own.rmdir()
    assert find_ca_directory(Named(), environ, grid) == grid


def test_a_named_ca_directory_that_is_missing_is_never_skipped(tmp_path: Path) -> None:
    with pytest.raises(TrustUnreadable, match=r"\$X509_CERT_DIR"):
        find_ca_directory(Named(), {"X509_CERT_DIR": str(tmp_path / "gone")}, tmp_path)
    with pytest.raises(TrustUnreadable, match="--ca-dir"):
        find_ca_directory(Named(ca_directory="/gone"), {}, tmp_path)
    words = f"no CA certificates: neither /gone/.globus/certificates nor {tmp_path}/gone is a dir"
    with pytest.raises(TrustUnreadable, match=words):
        find_ca_directory(Named(), {"HOME": "/gone"}, tmp_path / "gone")
