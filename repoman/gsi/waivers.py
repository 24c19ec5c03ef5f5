"""Errors of OpenSSL that the handshake puts off, and where each may have been right.

Legacy and draft proxies never verify natively.  A callback that forgave their
errors would let any user sign a certificate for any name, because it sees one
certificate and no chain.  So the handshake only records, and here each record
is checked against the place in the verified chain.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from cryptography.x509.oid import ExtensionOID

from repoman.errors import CredentialRefused
from repoman.gsi.chain import CertificatePath
from repoman.gsi.proxycertinfo import Flavour

UNABLE_TO_GET_CRL: Final = 3
"""A legacy proxy's issuer has no CRL; and a CA need not have one everywhere."""
PATH_LENGTH_EXCEEDED: Final = 25
"""OpenSSL counts legacy proxies as if they were CAs."""
INVALID_PURPOSE: Final = 26
"""An end entity that signs is not fit to be a CA."""
KEYUSAGE_NO_CERTSIGN: Final = 32
"""An end entity that signs may not sign certificates."""
UNHANDLED_CRITICAL_EXTENSION: Final = 34
"""OpenSSL does not know the draft's ProxyCertInfo."""
INVALID_CA: Final = 79
"""An end entity that signs is no CA."""

WAIVABLE: Final = {
    UNABLE_TO_GET_CRL: "There is no CRL to look a certificate up in.",
    PATH_LENGTH_EXCEEDED: "A certificate authority may not have so many below it.",
    INVALID_PURPOSE: "Your certificate is not meant for clients.",
    KEYUSAGE_NO_CERTSIGN: "A certificate was signed with a key that may not sign certificates.",
    UNHANDLED_CRITICAL_EXTENSION: "A certificate has a critical extension that is not known here.",
    INVALID_CA: "A certificate was signed by one that is no certificate authority.",
}
"""What the handshake may put off, with the refusal where it was an error after all."""


def check_waivers(
    path: CertificatePath, flavours: Collection[Flavour], waived: Collection[tuple[int, int]]
) -> None:
    """Check that legacy or draft proxies explain every error that was put off.

    :param waived: (error, depth) pairs; depth 0 is the leaf.
    :raises CredentialRefused: one has no such explanation.
    """
    for error, depth in sorted(waived):
        if not _explained(path, flavours, error, depth):
            raise CredentialRefused(
                WAIVABLE.get(error, f"Your certificate failed verification (error {error}).")
            )


def _explained(
    path: CertificatePath, flavours: Collection[Flavour], error: int, depth: int
) -> bool:
    end_entity = len(path.proxies)
    old = Flavour.LEGACY in flavours or Flavour.DRAFT in flavours
    if error in (INVALID_CA, INVALID_PURPOSE, KEYUSAGE_NO_CERTSIGN):
        return old and 0 < depth <= end_entity
    if error == UNHANDLED_CRITICAL_EXTENSION and Flavour.DRAFT in flavours:
        # Which critical extensions a proxy has is looked at with its other rules.
        return 0 <= depth < end_entity
    if error == PATH_LENGTH_EXCEEDED:
        # check_authority_path_lengths counts again, without proxies.
        return bool(path.proxies) and depth > end_entity
    if error == UNABLE_TO_GET_CRL:
        # Trust.judge looks up the CRLs of the authorities itself.
        return old or depth >= end_entity
    return False


def check_authority_path_lengths(path: CertificatePath) -> None:
    """Count the CAs below each CA again (RFC 5280, 6.1.4 l and m), without proxies.

    OpenSSL adds the path lengths that proxies claim to those of the CAs.

    :raises CredentialRefused: there are more than a CA allows.
    """
    below = 0
    for authority in path.authorities:
        constraints = authority.extension(ExtensionOID.BASIC_CONSTRAINTS)
        allowed = constraints and constraints.path_length
        if allowed is not None and below > allowed:
            raise CredentialRefused(WAIVABLE[PATH_LENGTH_EXCEEDED])
        if not authority.is_root:
            below += 1
