"""The daemon prefers the ciphers that its processor is quick with."""

from __future__ import annotations

import time

from attrs import evolve
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL

from repoman.ciphers import AES, CHACHA20, by_speed, cipher_lists


class Slow:
    def encrypt(self, nonce: bytes, data: bytes, associated: None) -> bytes:
        time.sleep(0.001)
        return data


def test_the_quicker_kind_comes_first() -> None:
    slow = {"make": Slow}
    assert by_speed([evolve(AES, **slow), CHACHA20])[0] is CHACHA20
    assert by_speed([evolve(CHACHA20, **slow), AES])[0] is AES


def test_a_kind_that_cannot_be_made_comes_last() -> None:
    def forbidden() -> None:
        raise UnsupportedAlgorithm("Not under FIPS.")

    assert by_speed([evolve(CHACHA20, make=forbidden), AES])[0] is AES
    assert by_speed([evolve(AES, make=forbidden), CHACHA20])[0] is CHACHA20


def test_openssl_understands_the_lists_and_every_cipher_encrypts_with_forward_secrecy() -> None:
    tls12, tls13 = cipher_lists()
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(tls12)
    context.set_tls13_ciphersuites(tls13)
    names = SSL.Connection(context, None).get_cipher_list()
    assert {"TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"} <= {*names}
    assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
