"""What somebody can see by themselves of why a server refuses their credential.

A TLS alert is one word with several causes, some of them at the server.  So a
client looks at its own dates, keys and chain, and at what its own CA directory
says about them, before it blames any.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, rsa

from repoman.errors import CredentialRefused, TrustUnreadable
from repoman.gsi.advice import Sight
from repoman.gsi.ca_directory import CADirectory, read_about, read_authorities
from repoman.gsi.chain import CertificatePath, divide, moment
from repoman.gsi.credential import ClientCredential, is_signed_by, why_ended, why_incomplete
from repoman.gsi.crl import check_revocation, why_useless
from repoman.gsi.dn import dn_text, shown_name
from repoman.gsi.proxy import DEEPEST, ProxyRules, identity_of, or_refuse

LEAST_BITS: Final = 2048
"""The smallest RSA key that OpenSSL takes at security level 2."""

EXPIRED: Final = frozenset({"certificate expired"})
EARLY: Final = frozenset({"bad certificate"})
WEAK: Final = frozenset({"bad certificate"})
REVOKED: Final = frozenset({"certificate revoked"})
UNTRUSTED: Final = frozenset({"unknown ca", "certificate unknown"})
MISSIGNED: Final = UNTRUSTED | {"decrypt error", "bad certificate"}
AGAINST_RULES: Final = frozenset(
    {"unknown ca", "certificate unknown", "unsupported certificate", "bad certificate"}
)
"""The alerts that a server of OpenSSL's sends for each kind of fault."""


@frozen
class Seen:
    """Something that is wrong as far as can be seen from here.

    :ivar alerts: which a server would send for it.
    :ivar text: what is wrong with which certificate, and what helps; without a full stop.
    """

    alerts: frozenset[str]
    text: str


def examine(shown: ClientCredential, place: Path, now: datetime) -> list[Seen]:
    """Look at a credential as a server would.

    :param place: the client's own CA directory.
    :param now: aware, UTC.
    """
    found = [*_of_dates(shown, now), *_of_strength(shown), *_of_length(shown)]
    try:
        authorities = read_authorities(place)
    except TrustUnreadable:
        return found
    above = _above(shown, authorities)
    if not above:
        return [*found, _without_issuer(shown, authorities, place)]
    try:
        whole = (shown.credential.certificate, *shown.credential.chain, *above)
        path = or_refuse(whole, lambda: divide(whole))
        found += _of_crls(path, read_about(path.authorities, place, authorities), place, now)
        if not found:
            or_refuse(whole, lambda: identity_of(path, now, ProxyRules(), ()))
    except CredentialRefused as refusal:
        found.append(Seen(AGAINST_RULES, f"{shown.path}: {refusal.message.rstrip('.')}"))
    except TrustUnreadable:
        pass  # the directory has gone in between
    return found


def look(shown: ClientCredential, place: Path, now: datetime, alert: str) -> Sight:
    """Look for the cause of an alert; for the parameters see :func:`examine`."""
    found = [seen.text for seen in examine(shown, place, now) if alert in seen.alerts]
    return Sight(
        "; ".join(found),
        f"{shown.path} is in order as far as can be seen here (valid until"
        f" {moment(shown.not_after)}, issued by {_issuer_name(shown.end_entity)})",
    )


def _of_dates(shown: ClientCredential, now: datetime) -> Iterator[Seen]:
    if ended := why_ended(shown, now):
        yield Seen(EXPIRED, ended.rstrip("."))
    if early := why_early(shown, now):
        yield Seen(EARLY, early.rstrip("."))
    for authority in shown.credential.chain[len(shown.credential.own) - 1 :]:
        if authority.not_valid_after_utc < now:
            yield Seen(
                EXPIRED,
                f"the certificate authority {_name(authority)} in {shown.path} expired at"
                f" {moment(authority.not_valid_after_utc)}; put its new certificate in its place",
            )


def why_early(shown: ClientCredential, now: datetime) -> str:
    """Which of its certificates is not valid yet; empty if all are."""
    begins = max(certificate.not_valid_before_utc for certificate in shown.credential.own)
    if begins <= now:
        return ""
    return (
        f"{shown.path} is valid only from {begins:%Y-%m-%d %H:%M:%S} UTC on, and here it is"
        f" {now:%Y-%m-%d %H:%M:%S} UTC: set the clock of this machine."
    )


def _of_strength(shown: ClientCredential) -> Iterator[Seen]:
    for certificate in (shown.credential.certificate, *shown.credential.chain):
        if fault := _weakness(certificate):
            advice = (
                "make a new proxy with grid-proxy-init -bits 2048"
                if certificate in shown.credential.own[:-1]
                else "get a new certificate from your certificate authority"
            )
            yield Seen(WEAK, f"{_name(certificate)} in {shown.path} {fault}; {advice}")


def _weakness(certificate: x509.Certificate) -> str:
    try:
        key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    except Exception:  # a kind that is not known here says nothing about its strength
        return ""
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < LEAST_BITS:
        return f"has a key of {key.key_size} bits only"
    if isinstance(digest, hashes.MD5 | hashes.SHA1):
        return f"is signed with {digest.name.upper()}, which is too weak"
    return ""


def _of_length(shown: ClientCredential) -> Iterator[Seen]:
    proxies = len(shown.credential.own) - 1
    if lacks := why_incomplete(shown):
        yield Seen(UNTRUSTED, lacks.rstrip("."))
    if proxies > DEEPEST:
        yield Seen(
            UNTRUSTED,
            f"{shown.path} has {proxies} proxies one below the other, and {DEEPEST} are the most;"
            " make a new one with grid-proxy-init",
        )


def _above(shown: ClientCredential, directory: CADirectory) -> tuple[x509.Certificate, ...]:
    """The certificates of the directory above it, up to a root; empty if there are none."""
    last = (shown.credential.certificate, *shown.credential.chain)[-1]
    found: list[x509.Certificate] = []
    known = [authority.certificate for authority in directory.authorities]
    while last.subject != last.issuer:
        issuer = next((c for c in known if c not in found and is_signed_by(last, c)), None)
        if issuer is None:
            return ()
        found.append(issuer)
        last = issuer
    return tuple(found)


def _without_issuer(shown: ClientCredential, directory: CADirectory, place: Path) -> Seen:
    last = (shown.credential.certificate, *shown.credential.chain)[-1]
    issued = f"{_name(last)} in {shown.path} was issued by {_issuer_name(last)}"
    if any(known.certificate.subject == last.issuer for known in directory.authorities):
        return Seen(
            MISSIGNED,
            f"{issued}, but not signed with the key of the one of this name in {place}: the"
            " certificate is damaged or forged, or that authority has a new key",
        )
    return Seen(
        UNTRUSTED,
        f"{issued}, whose certificate is neither in that file nor in {place}: if it is a sub-CA,"
        " add its certificate to the file; else ask the server's administrator whether it is"
        " trusted there",
    )


def _of_crls(
    path: CertificatePath, directory: CADirectory, place: Path, now: datetime
) -> Iterator[Seen]:
    for certificate, issuer in path.certified:
        crls = directory.find(issuer.certificate).crls
        if why := why_useless(crls, now) if crls else "":
            alerts = EXPIRED if "expired" in why else EARLY
            yield Seen(
                alerts,
                f"the CRL of {issuer.dn} in {place} {why}, and the server's is perhaps the same:"
                " run fetch-crl here, and tell the server's administrator",
            )
            continue
        try:
            check_revocation(certificate, issuer, crls, "if-present", now)
        except CredentialRefused as refusal:
            yield Seen(REVOKED, refusal.message.rstrip("."))


def _name(certificate: x509.Certificate) -> str:
    return shown_name(lambda: certificate)


def _issuer_name(certificate: x509.Certificate) -> str:
    try:
        return dn_text(certificate.issuer)
    except CredentialRefused:
        return "a certificate authority whose name cannot be shown"
