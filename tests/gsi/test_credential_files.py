"""What users' files look like: a named credential is used, or refused with what helps."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.credential import ClientCredential, read_host_credential
from tests.credentials import (
    DAY,
    HOUR,
    Credential,
    Grid,
    authority,
    bits,
    certificate,
    der,
    end_entity,
    host,
    integer,
    now,
    octets,
    oid,
    pem,
    rdn,
    rsa_key,
    seq,
    write_private,
)

SUB = "/C=CA/O=Grid/CN=Sub CA"


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


@frozen
class PssKey:
    """An RSA key that is for RSASSA-PSS alone (RFC 4055, 1.2)."""

    key: rsa.RSAPrivateKey

    algorithm = seq(oid("1.2.840.113549.1.1.10"))

    def public_key(self) -> PssKey:
        return self

    def public_bytes(self, *form: Any) -> bytes:
        content = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        return seq(self.algorithm, bits(content))

    def private_bytes(self, *form: Any) -> bytes:
        form = Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        return pem(
            "PRIVATE KEY", seq(integer(0), self.algorithm, octets(self.key.private_bytes(*form)))
        )


def pkcs8(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read(tmp_path: Path, *parts: bytes) -> ClientCredential:
    return ClientCredential.read(write_private(tmp_path / "x509up", b"".join(parts)), now=now())


def refused(tmp_path: Path, *parts: bytes) -> str:
    with pytest.raises(CredentialProblem) as problem:
        read(tmp_path, *parts)
    assert "\n" not in problem.value.message
    return problem.value.message


def expired(issuer: Credential | None, **bent: Any) -> Credential:
    """A sub-CA or root of the past."""
    times = {"begins": now() - 9 * DAY, "ends": now() - DAY}
    return authority(SUB, issuer, **(times | bent))


ODD_NAMES = {
    "name that is no UTF-8": rdn(("CN", der(0x0C, b"\xff"))),
    "name in Latin-1": rdn(("CN", der(0x14, b"Od\xe4"))),
    "name of bits": rdn(("CN", bits(b"x"))),
    "name that is a number": rdn(("CN", integer(7))),
}
"""Names that the library reads not before it is asked for them."""


def odd(subject: str | bytes, **bent: Any) -> Credential:
    """A certificate of somebody else."""
    return certificate(subject, rsa_key("odd"), **bent)


# Each gets: proxy, user, sub-CA, grid.
Parts = Callable[[Credential, Credential, Credential, Grid], list[bytes]]
GOOD: dict[str, Parts] = {
    "as grid tools write it": lambda p, u, s, g: [p.pem(), p.key_pem(), u.pem(), s.pem()],
    "the key first": lambda p, u, s, g: [p.key_pem(), p.pem(), u.pem(), s.pem()],
    "the key last": lambda p, u, s, g: [p.pem(), u.pem(), s.pem(), p.key_pem()],
    "the end entity first": lambda p, u, s, g: [u.pem(), p.pem(), p.key_pem(), s.pem()],
    "from the root down": lambda p, u, s, g: [g.ca.pem(), s.pem(), u.pem(), p.pem(), p.key_pem()],
    "each twice": lambda p, u, s, g: [p.pem(), p.key_pem(), *[u.pem(), s.pem(), p.pem()] * 2],
    "the root too": lambda p, u, s, g: [p.pem(), p.key_pem(), u.pem(), s.pem(), g.ca.pem()],
    "an old proxy": lambda p, u, s, g: [
        u.proxy(whose="old", begins=now() - DAY, ends=now() - HOUR).pem(),
        p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    "an old proxy with its key": lambda p, u, s, g: [
        (old := u.proxy(whose="old", begins=now() - DAY, ends=now() - HOUR)).pem(), old.key_pem(),
        p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    "an old certificate of the same key": lambda p, u, s, g: [
        end_entity("/C=CA/O=Grid/CN=Roger Impey", s, begins=now() - 9 * DAY, ends=now() - DAY,
                   key=u.key).pem(),
        p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    "the sub-CA as it was": lambda p, u, s, g: [
        p.pem(), p.key_pem(), u.pem(), expired(g.ca).pem(), s.pem(),
    ],
    "the sub-CA as another signed it, once": lambda p, u, s, g: [
        p.pem(), p.key_pem(), u.pem(), expired(authority("/C=XX/CN=X")).pem(), s.pem(),
    ],
    "an expired root": lambda p, u, s, g: [
        p.pem(), p.key_pem(), u.pem(), s.pem(),
        authority("/C=CA/O=Grid/CN=Test CA", begins=now() - 9 * DAY, ends=now() - DAY).pem(),
    ],
    "another's expired certificate": lambda p, u, s, g: [
        p.pem(), p.key_pem(), u.pem(), s.pem(), g.user("Anna", ends=now() - HOUR / 2).pem(),
    ],
    "another key": lambda p, u, s, g: [
        rsa_key("x").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    "a broken certificate": lambda p, u, s, g: [
        pem("CERTIFICATE", b"broken"), p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    **{
        f"another's {which} before and behind": lambda p, u, s, g, name=name: [
            odd(name).pem(), p.pem(), p.key_pem(), u.pem(), s.pem(), odd(name).pem(),
        ]
        for which, name in ODD_NAMES.items()
    },
    **{
        f"{which} of the issuer of another": lambda p, u, s, g, name=name: [
            odd("/C=XX/CN=Odd", issuer_name=name).pem(), p.pem(), p.key_pem(), u.pem(), s.pem(),
        ]
        for which, name in ODD_NAMES.items()
    },
    "text between": lambda p, u, s, g: [
        b"Bag Attributes\n    friendlyName: Roger\nsubject=/C=CA\nissuer=/C=CA\n", p.pem(),
        b"\n\nBag Attributes\n  localKeyID: 01 \nKey Attributes: <No Attributes>\n", p.key_pem(),
        b"Certificate:\n    Data:\n        Version: 3 (0x2)\n", u.pem(), b"# \xff\n", s.pem(),
    ],
    "lines of Windows": lambda p, u, s, g: [
        part.replace(b"\n", b"\r\n") for part in (p.pem(), p.key_pem(), u.pem(), s.pem())
    ],
    "a byte order mark": lambda p, u, s, g: [
        b"\xef\xbb\xbf", p.pem(), p.key_pem(), u.pem(), s.pem(),
    ],
    "UTF-16": lambda p, u, s, g: [
        b"".join([p.pem(), p.key_pem(), u.pem(), s.pem()]).decode().encode("utf-16"),
    ],
    "PKCS#8": lambda p, u, s, g: [p.pem(), pkcs8(p.key), u.pem(), s.pem()],
    "indented": lambda p, u, s, g: [
        b"  " + line for part in (p.pem(), p.key_pem(), u.pem(), s.pem())
        for line in part.splitlines(keepends=True)
    ],
    "its beginning behind it": lambda p, u, s, g: [
        p.pem(), p.key_pem(), u.pem(), s.pem(), p.pem()[:100],
    ],
}  # fmt: skip


@pytest.mark.parametrize("which", GOOD)
def test_only_the_chain_of_the_key_counts(grid: Grid, tmp_path: Path, which: str) -> None:
    sub = authority(SUB, grid.ca)
    user = end_entity("/C=CA/O=Grid/CN=Roger Impey", sub)
    proxy = user.proxy()
    found = read(tmp_path, *GOOD[which](proxy, user, sub, grid))
    shown = found.credential
    assert (shown.certificate, *shown.chain) == tuple(proxy.path[:-1])
    assert found.not_after == proxy.certificate.not_valid_after_utc
    assert found.end_entity == user.certificate


def test_the_end_of_a_ca_is_for_the_server_to_judge(grid: Grid, tmp_path: Path) -> None:
    """It may have a renewed one of the same key in its directory."""
    sub = expired(grid.ca)
    user = end_entity("/C=CA/O=Grid/CN=Roger Impey", sub)
    found = read(tmp_path, user.pem(), user.key_pem(), sub.pem())
    assert found.not_after == user.certificate.not_valid_after_utc


@pytest.mark.parametrize("which", ODD_NAMES)
def test_an_own_name_that_cannot_be_read_is_told(grid: Grid, tmp_path: Path, which: str) -> None:
    user = end_entity(rdn(("C", "CA")) + ODD_NAMES[which], grid.ca)
    for shown in (user, user.proxy()):
        told = refused(tmp_path, shown.write(tmp_path / "made").read_bytes())
        assert f"A certificate in {tmp_path}/x509up is not validly encoded" in told
        assert "ParseError" not in told


def test_a_host_may_have_such_a_name(grid: Grid, tmp_path: Path) -> None:
    for name in ODD_NAMES.values():
        server = host(grid.ca, "localhost", subject=name)
        server.write_pair(tmp_path / "cert", tmp_path / "key")
        found = read_host_credential(tmp_path / "cert", tmp_path / "key")
        assert found.certificate == server.certificate


ENDED: dict[str, tuple[Callable[[Grid], Credential], str]] = {
    "the proxy": (lambda g: g.user().proxy(ends=now() - HOUR / 2), "; make a new proxy with"),
    "a proxy between": (
        lambda g: g.user().proxy(ends=now() - HOUR / 2).proxy(), "; make a new proxy with"
    ),
    "the end entity": (lambda g: g.user(ends=now() - HOUR / 2), "get a new one from your certif"),
    "the end entity below a proxy": (
        lambda g: g.user(ends=now() - HOUR / 2).proxy(),
        "the certificate /C=CA/O=Grid/CN=Roger Impey itself has; get a new one from your certif",
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", ENDED)
def test_what_has_expired_is_named_with_what_helps(grid: Grid, tmp_path: Path, which: str) -> None:
    make, words = ENDED[which]
    told = refused(tmp_path, make(grid).write(tmp_path / "made").read_bytes())
    assert f"{tmp_path}/x509up expired at" in told
    assert words in told


def curve(kind: Any) -> Callable[[], Any]:
    return lambda: ec.generate_private_key(kind())


KEYS: dict[str, Callable[[], Any]] = {
    "RSA": lambda: rsa_key("x"),
    "P-256": curve(ec.SECP256R1),
    "P-384": curve(ec.SECP384R1),
    "P-521": curve(ec.SECP521R1),
    "brainpoolP256r1": curve(ec.BrainpoolP256R1),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}
"""Keys that TLS shows; tests/tls/test_client_credential.py shows them."""

DROPPED: dict[str, tuple[Callable[[], Any], str]] = {
    "RSASSA-PSS": (lambda: PssKey(rsa_key("x")), "for RSASSA-PSS alone"),
    "P-224": (curve(ec.SECP224R1), "on the curve secp224r1"),
    "secp256k1": (curve(ec.SECP256K1), "on the curve secp256k1"),
    "P-192": (curve(ec.SECP192R1), "on the curve secp192r1"),
    "DSA": (lambda: dsa.generate_private_key(2048), "of a kind that TLS does not use"),
}
"""Keys that OpenSSL takes, and then shows nothing."""


@pytest.mark.parametrize("which", KEYS)
def test_keys_of_all_kinds(grid: Grid, tmp_path: Path, which: str) -> None:
    key = KEYS[which]()
    user = grid.user(key=key)
    assert read(tmp_path, user.pem(), pkcs8(key)).credential.certificate == user.certificate
    if isinstance(key, ec.EllipticCurvePrivateKey):
        form = Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        parameters = pem("EC PARAMETERS", oid("1.2.840.10045.3.1.7"))
        read(tmp_path, parameters, key.private_bytes(*form), user.pem())


@pytest.mark.parametrize("which", DROPPED)
def test_a_key_that_would_be_dropped_in_silence_is_refused(
    grid: Grid, tmp_path: Path, which: str
) -> None:
    """Of a user: who named it would go on as nobody.  Of a host: it would serve nobody."""
    make, words = DROPPED[which]
    key = make()
    told = refused(tmp_path, grid.user(key=key).pem(), pkcs8(key))
    assert f"The key in {tmp_path}/x509up is {words}" in told
    assert "take one of RSA, P-256, P-384, P-521 or Ed25519" in told
    shown = write_private(tmp_path / "host", host(grid.ca, "localhost", key=key).pem() + pkcs8(key))
    with pytest.raises(TrustUnreadable, match=words):
        read_host_credential(shown, shown)


def test_a_proxy_of_such_a_key_is_shown(grid: Grid, tmp_path: Path) -> None:
    """Its own key is of another kind, and it is the server's to judge those above."""
    user = grid.user(key=PssKey(rsa_key("x")))
    proxy = user.proxy(signer=rsa_key("x"))
    assert read(tmp_path, proxy.pem(), proxy.key_pem(), user.pem()).end_entity == user.certificate


def openssl(tmp_path: Path, *words: str) -> bytes:
    done = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, check=True)
    return done.stdout


def test_keys_as_openssl_writes_them(grid: Grid, tmp_path: Path) -> None:
    """RSASSA-PSS with parameters too; and curves that the library does not know."""
    rsa_pss = openssl(
        tmp_path, "genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048",
        "-pkeyopt", "rsa_pss_keygen_md:sha256",
    )  # fmt: skip
    write_private(tmp_path / "key", rsa_pss)
    certificate = openssl(tmp_path, "req", "-x509", "-new", "-key", "key", "-subj", "/CN=x")
    assert "for RSASSA-PSS alone" in refused(tmp_path, certificate, rsa_pss)
    unknown = openssl(tmp_path, "ecparam", "-genkey", "-noout", "-name", "brainpoolP256t1")
    write_private(tmp_path / "key", unknown)
    certificate = openssl(tmp_path, "req", "-x509", "-new", "-key", "key", "-subj", "/CN=x")
    assert "is of a kind that is not known here" in refused(tmp_path, certificate, unknown)


def locked(user: Credential, form: PrivateFormat) -> bytes:
    return bytes(user.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))


def of_pkcs12(user: Credential) -> bytes:
    lock = BestAvailableEncryption(b"secret")
    return pkcs12.serialize_key_and_certificates(b"x", user.key, user.certificate, None, lock)


USELESS: dict[str, tuple[Callable[[Credential], bytes], str]] = {
    "empty": (lambda u: b"", "holds no certificate in PEM form: it is empty"),
    "blank": (lambda u: b" \n\n", "it is empty"),
    "locked": (lambda u: u.pem() + locked(u, PrivateFormat.PKCS8), "protected by a pass phrase"),
    "locked as of old": (
        lambda u: u.pem() + locked(u, PrivateFormat.TraditionalOpenSSL), "protected by a pass"
    ),
    "PKCS#12": (of_pkcs12, "openssl pkcs12 -in "),
    "a certificate in DER": (lambda u: u.der, "openssl x509 -inform DER -in "),
    "a key in DER": (
        lambda u: u.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "openssl pkey -inform DER -in ",
    ),
    "cut in its certificate": (lambda u: u.pem()[:300], "it is cut off in the middle"),
    "cut in its key": (lambda u: u.pem() + u.key_pem()[:300], "it is cut off in the middle"),
    "a broken key": (lambda u: u.pem() + pem("PRIVATE KEY", b"broken"), "what is called one is br"),
    "a broken certificate": (
        lambda u: pem("CERTIFICATE", b"broken") + u.key_pem(), "is not validly encoded"
    ),
    "another's key": (
        lambda u: u.pem() + pkcs8(rsa_key("another")), "does not belong to the certificate"
    ),
    "a key that signs nothing": (
        lambda u: u.pem() + pkcs8(x25519.X25519PrivateKey.generate()), "does not belong to the"
    ),
    "a public key": (
        lambda u: u.pem() + u.key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "holds no private key",
    ),
    "a key of OpenSSH": (
        lambda u: u.pem() + u.key.private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), "ssh-keygen -p -m PEM -f COPY",
    ),
    "a web page": (lambda u: b"<!DOCTYPE html><title>404</title>", "holds no certificate"),
    "a proxy alone": (
        lambda u: (p := u.proxy()).pem() + p.key_pem(), "lacks the certificate that signed"
    ),
    "an old proxy alone": (
        lambda u: (p := u.legacy_proxy()).pem() + p.key_pem(), "lacks the certificate that signed"
    ),
    "a proxy, and half of its end entity": (
        lambda u: (p := u.proxy()).pem() + p.key_pem() + u.pem()[:200], "it is cut off in the mid"
    ),
    "a proxy, and its CA": (
        lambda u: (p := u.proxy()).pem() + p.key_pem() + u.issuers[0].pem(), "lacks the certificate"
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", USELESS)
def test_a_file_that_is_of_no_use_says_why(grid: Grid, tmp_path: Path, which: str) -> None:
    make, words = USELESS[which]
    told = refused(tmp_path, make(grid.user()))
    assert words in told
    assert str(tmp_path / "x509up") in told
    for odd in ("ParseError", "https://", "Error:", "b'", "<"):
        assert odd not in told


def test_the_commands_that_are_named_work(grid: Grid, tmp_path: Path) -> None:
    user = grid.user()
    write_private(tmp_path / "x.p12", of_pkcs12(user))
    openssl(tmp_path, "pkcs12", "-in", "x.p12", "-nodes", "-out", "new", "-passin", "pass:secret")
    assert read(tmp_path, (tmp_path / "new").read_bytes()).end_entity == user.certificate
    (tmp_path / "x.der").write_bytes(user.der)
    text = openssl(tmp_path, "x509", "-inform", "DER", "-in", "x.der")
    assert read(tmp_path, text, user.key_pem()).end_entity == user.certificate


def test_of_two_certificates_of_one_key_the_one_that_lasts_is_a_hosts(
    grid: Grid, tmp_path: Path
) -> None:
    old, new = host(grid.ca, "localhost", ends=now() + HOUR), host(grid.ca, "localhost")
    for parts in ([old, new], [new, old]):
        path = write_private(tmp_path / "host", b"".join(p.pem() for p in parts) + new.key_pem())
        assert read_host_credential(path, path).certificate == new.certificate


def test_a_proxy_may_come_through_a_pipe(grid: Grid, tmp_path: Path) -> None:
    """As bash has it: ``--proxy <(...)``."""
    grid.user().proxy().write(tmp_path / "x509up")
    with subprocess.Popen(["cat", "x509up"], cwd=tmp_path, stdout=subprocess.PIPE) as pipe:
        assert pipe.stdout is not None
        assert ClientCredential.read(Path(f"/dev/fd/{pipe.stdout.fileno()}"), now=now())


def test_a_pair_of_files_in_any_order(grid: Grid, tmp_path: Path) -> None:
    """As CAs send certificates: theirs first."""
    user = grid.user()
    cert, key = tmp_path / "usercert.pem", write_private(tmp_path / "userkey.pem", user.key_pem())
    cert.write_bytes(grid.ca.pem() + user.pem())
    assert ClientCredential.read(cert, key, now()).credential.certificate == user.certificate
    made = host(grid.ca, "localhost")
    cert.write_bytes(grid.ca.pem() + made.pem())
    write_private(key, made.key_pem())
    assert read_host_credential(cert, key).certificate == made.certificate
