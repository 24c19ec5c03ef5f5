"""Which ciphers this machine is quick with: an order that TLS prefers them in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

PIECE: Final = bytes(16 * 1024)
"""What a TLS record holds."""

ROUNDS: Final = 10
"""How often each is tried; the best time counts, since others use the processor too."""


@frozen
class Suites:
    """Ciphers of one kind.

    :ivar tls13: names of suites of TLS 1.3 (RFC 8446 appendix B.4).
    :ivar tls12: a word of OpenSSL's cipher list, for TLS 1.2.
    """

    tls13: str
    tls12: str
    make: Any


# With hardware for AES, 128 bits take two thirds of the rounds of 256.
AES: Final = Suites(
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
    "ECDHE+AESGCM",
    lambda: AESGCM(bytes(16)),
)
CHACHA20: Final = Suites(
    "TLS_CHACHA20_POLY1305_SHA256", "ECDHE+CHACHA20", lambda: ChaCha20Poly1305(bytes(32))
)


def cipher_lists() -> tuple[bytes, bytes]:
    """OpenSSL's cipher lists for TLS 1.2 and for 1.3, in our order of preference.

    Level 2: no RSA below 2048 bits, no SHA-1, no MD5.
    """
    fastest = by_speed()
    tls12 = ":".join(kind.tls12 for kind in fastest) + ":ECDHE+AES:@SECLEVEL=2"
    return tls12.encode(), ":".join(kind.tls13 for kind in fastest).encode()


def by_speed(kinds: Sequence[Suites] = (AES, CHACHA20)) -> list[Suites]:
    """The kinds of ciphers, the fastest on this machine first; takes some milliseconds."""
    return sorted(kinds, key=_seconds)


def _seconds(kind: Suites) -> float:
    """The time that passes over one piece; without end, if OpenSSL may not do it, as by FIPS."""
    try:
        cipher = kind.make()
    except UnsupportedAlgorithm:
        return float("inf")
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        cipher.encrypt(bytes(12), PIECE, None)
        best = min(best, time.perf_counter() - begun)
    return best
