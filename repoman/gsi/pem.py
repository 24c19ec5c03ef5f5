"""The blocks of a PEM file, whatever stands around them, and what a file is that has none.

Tools write much beside the blocks: bag attributes, the text of certificates,
the parameters of a curve; and Windows its own ends of lines and marks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from repoman.gsi.encoding import encoding_fault

_BLOCK: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----(?:(?!-----BEGIN ).)*?-----END \1-----", re.DOTALL
)
_BEGINNING: Final = re.compile(rb"-----BEGIN ")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_CERTIFICATES: Final = {b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"}

_PKCS12: Final = re.compile(
    rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03", re.DOTALL
)
"""How a PFX begins (RFC 7292, 4): a sequence, and version 3."""


@frozen
class Pem:
    """What is in a file.

    :ivar path: for messages.
    :ivar blocks: each with its label.
    :ivar is_cut_off: a block has no end: the file is being written, or was never completed.
    """

    path: Path
    content: bytes
    blocks: tuple[tuple[bytes, bytes], ...]
    is_cut_off: bool

    @classmethod
    def parse(cls, path: Path, content: bytes) -> Pem:
        """Find the blocks."""
        if content.startswith(_UTF16):
            content = content.decode("utf-16", "replace").encode()
        blocks = tuple((block[1], block[0]) for block in _BLOCK.finditer(content))
        return cls(path, content, blocks, len(_BEGINNING.findall(content)) > len(blocks))

    def certificates(self) -> list[x509.Certificate]:
        """The certificates that can be read, each once, in their order.

        :raises ValueError: with a sentence for a person: there is none.
        """
        found: dict[x509.Certificate, None] = {}
        fault = ""
        for label, block in self.blocks:
            if label in _CERTIFICATES:
                try:
                    found[x509.load_pem_x509_certificate(block)] = None
                except Exception as error:  # the decoder raises various things at broken bytes
                    fault = fault or f"The certificate in {self.path} {encoding_fault(error)}."
        if not found:
            raise ValueError(fault or self._lack("certificate"))
        return list(found)

    def keys(self) -> list[Any]:
        """The private keys that can be read, in their order.

        :raises ValueError: with a sentence for a person: there is none.
        """
        found, fault = [], ""
        for label, block in self.blocks:
            if label.endswith(b"PRIVATE KEY"):
                try:
                    # The test of an RSA key's primes takes up to 0.3 s, each time that the daemon
                    # reads its key again; that the key fits the certificate is tested anyhow.
                    key = load_pem_private_key(block, None, unsafe_skip_rsa_key_validation=True)
                    found.append(key)
                except Exception as error:
                    fault = fault or self._key_fault(block, error)
        if not found:
            raise ValueError(fault or self._lack("private key"))
        return found

    def _key_fault(self, block: bytes, error: Exception) -> str:
        if block.startswith(b"-----BEGIN OPENSSH"):
            return (
                f"The key in {self.path} is in OpenSSH's form; convert a copy of it:"
                " ssh-keygen -p -m PEM -f COPY."
            )
        if b"ENCRYPTED" in block or isinstance(error, TypeError):
            return f"The key in {self.path} is protected by a pass phrase."
        if isinstance(error, UnsupportedAlgorithm):
            return f"The key in {self.path} is of a kind that is not known here."
        return f"{self.path} holds no private key in PEM form: what is called one is broken."

    def _lack(self, what: str) -> str:
        text = f"{self.path} holds no {what} in PEM form"
        if not self.content.strip():
            return f"{text}: it is empty."
        if _PKCS12.match(self.content):
            return (
                f"{text}, but PKCS#12; convert it: openssl pkcs12 -in {self.path} -nodes -out NEW,"
                " then chmod 600 NEW."
            )
        if form := _der_form(self.content):
            return f"{text}, but DER; convert it: openssl {form} -inform DER -in {self.path}."
        return f"{text}: it is cut off in the middle." if self.is_cut_off else f"{text}."


def _der_form(content: bytes) -> str:
    """The command of openssl that reads it; empty if it is no DER of what one may have."""
    for command, load in _DER.items():
        with contextlib.suppress(Exception):
            load(content)
            return command
    return ""


_DER: Final[Mapping[str, Callable[[bytes], object]]] = {
    "x509": x509.load_der_x509_certificate,
    "pkey": lambda content: load_der_private_key(content, None),
}
