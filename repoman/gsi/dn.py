r"""The text of a distinguished name, with exactly one reading.

A name is a sequence of RDNs, root first; an RDN is a set of (attribute type,
value).  Values count exactly as decoded: no case folding, no squeezing of
blanks, whatever the string type.  It is printed in the grid's familiar form,
``/C=CA/O=Grid/CN=Roger Impey``, with ``+`` between the values of one RDN and
a backslash before ``\\``, ``/`` and ``+`` inside a value.

OpenSSL's one-line form is refused as a key: it escapes nothing, so that two
different names share one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from unicodedata import normalize

from cryptography import x509

from repoman.errors import CredentialRefused, Invalid
from repoman.gsi.attributes import OIDS

ATTRIBUTES: Final = {
    "2.5.4.6": "C",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.3": "CN",
    "0.9.2342.19200300.100.1.25": "DC",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "0.9.2342.19200300.100.1.1": "UID",
    "1.2.840.113549.1.9.1": "emailAddress",
    "2.5.4.5": "serialNumber",
    "2.5.4.42": "GN",
    "2.5.4.4": "SN",
}
"""How attribute types are printed, by OID; any other as its dotted OID."""

COMMON_NAME: Final = "2.5.4.3"
"""The OID of CN."""

LIMIT: Final = 2000
"""The longest DN text, in bytes of UTF-8: a database's index holds not much more."""

Rdn = tuple[tuple[str, str], ...]
"""One RDN: its (OID, value) pairs, sorted."""

_NUMBER = r"(?:0|[1-9][0-9]*)"
_TYPE = rf"(?:(?:OID\.)?{_NUMBER}(?:\.{_NUMBER})+|{'|'.join(OIDS)})="
# ASCII, or the long s and the sign for Kelvin would be letters of a type's name.
_DIVIDER = re.compile(rf"([/+])(?={_TYPE})", re.IGNORECASE | re.ASCII)
_MAYBE_DIVIDER = re.compile(r"[/+]\s*[A-Za-z0-9.-]+\s*=")
_SPECIAL = re.compile(r"([\\/+])")
_BACKSLASHED = r"\\\1"
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
_BYTES = re.compile(r"(\\\\)|((?:\\x[0-9A-Fa-f]{2})+)")
# Letters, marks and signs to Unicode, but nothing to the eye.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

# Escaped characters while a text is taken apart: no value may hold a control character.
_HIDDEN = {"\\": "\x00", "/": "\x01", "+": "\x02"}
_SHOWN = str.maketrans({hidden: shown for shown, hidden in _HIDDEN.items()})


def rdns(name: x509.Name) -> tuple[Rdn, ...]:
    """The RDNs of a certificate's name, root first: what names are compared by.

    :raises CredentialRefused: nothing is in it, or a value that could be
        mistaken for another.
    """
    found = tuple(
        tuple(sorted((a.oid.dotted_string, _sound(a.value)) for a in rdn)) for rdn in name.rdns
    )
    if not found:
        raise CredentialRefused("A name in the certificate chain is empty.")
    return found


def likeness(name: tuple[Rdn, ...]) -> tuple[tuple[str, str], ...]:
    """What a name shares with all that OpenSSL or a person takes for the same.

    Neither letter case nor blanks, string types, order or grouping count, nor how Unicode
    composes a letter.  OpenSSL's own comparison (``X509_NAME_cmp``, after RFC 5280, 7.1) finds
    issuers and CRLs, and folds less.  Good for refusing what is too much alike, never as a key.
    """
    return tuple(sorted((oid, _folded(value)) for rdn in name for oid, value in rdn))


def _folded(value: str) -> str:
    return " ".join(normalize("NFKC", normalize("NFKC", value).casefold()).split())


def dn_text(name: x509.Name) -> str:
    """Print a certificate's name.

    :raises CredentialRefused: it cannot be printed so that everybody reads
        the same: control characters, empty values, blanks at an end.
    """
    return printed(rdns(name))


def printed(name: tuple[Rdn, ...]) -> str:
    """Print the RDNs of a name.

    :raises CredentialRefused: the text is too long.
    """
    text = _printed(name)
    if len(text.encode()) > LIMIT:
        raise CredentialRefused(f"A name in the certificate chain is longer than {LIMIT} bytes.")
    return text


def shown_name(read: Callable[[], x509.Certificate]) -> str:
    """The subject of a certificate for a log line, whatever state it is in."""
    try:
        return dn_text(read().subject)
    except Exception:  # odd encodings raise anything
        return "a certificate whose name cannot be shown"


def unescaped(text: str) -> str:
    """The form in which signing policies write a DN: its text without escapes.

    Good for matching globs only, never as a key.
    """
    return _ESCAPE.sub(r"\1", text)


def from_bytes(text: str) -> str:
    r"""Read what OpenSSL's one-line form has for letters beyond ASCII: ``\xC3\xBC``.

    An escaped backslash before an ``x`` stays what it is.

    :raises ValueError: these bytes are no UTF-8, or stand for what is printed as it is.
    """
    return _BYTES.sub(_letters, text)


def _letters(found: re.Match[str]) -> str:
    if found[1]:
        return found[1]
    try:
        letters = bytes.fromhex(found[2].replace("\\x", "")).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{found[2]} is not UTF-8") from None
    # OpenSSL prints ASCII as it is; what stands so could be a divider in disguise.
    if any(letter.isascii() for letter in letters):
        raise ValueError(f"a backslash and x stand for letters beyond ASCII only, not {found[2]}")
    return letters


def parse_dn(text: str, named: str = "dn") -> str:
    r"""Read a DN that a person typed; answer its canonical text.

    Takes our own form, and the unescaped one that grid tools print, in which
    ``/CN=host/www.example.org`` is one CN: a slash or plus divides only
    before a known attribute type and ``=``.  Types have all names that tools
    give them (:mod:`repoman.gsi.attributes`), in any case.  ``\xC3\xBC`` is
    the UTF-8 that OpenSSL and Globus print so.

    :param named: the input field, for the error.
    :raises Invalid: it is no DN, or has more than one reading.
    """
    try:
        canonical = _printed(_parsed(text.strip()))
    except ValueError as error:
        raise Invalid(
            f"Bad DN {text.strip()!r}: {error}. Write it like /C=CA/O=Grid/CN=Some Name.",
            field=named,
        ) from None
    if len(canonical.encode()) > LIMIT:
        raise Invalid(f"A DN is at most {LIMIT} bytes long.", field=named)
    return canonical


def _sound(value: object) -> str:
    fault = _fault(value)
    if fault:
        raise CredentialRefused(f"A name in the certificate chain has {fault}.")
    return str(value)


def _fault(value: object) -> str:
    if not isinstance(value, str):
        return "a value that is not text"
    if not value:
        return "an empty value"
    if _has_invisible(value):
        return "an invisible character"
    if value != value.strip():
        return "a blank at the beginning or end of a value"
    return ""


def _has_invisible(text: str) -> bool:
    # isprintable() knows controls, marks of direction, what is unassigned, and all blanks but one.
    return not text.isprintable() or (not text.isascii() and _UNSEEN.search(text) is not None)


def _printed(names: tuple[Rdn, ...]) -> str:
    return "".join("/" + "+".join(_printed_pair(*pair) for pair in rdn) for rdn in names)


def _printed_pair(oid: str, value: str) -> str:
    return f"{ATTRIBUTES.get(oid, oid)}={_SPECIAL.sub(_BACKSLASHED, value)}"


def _parsed(text: str) -> tuple[Rdn, ...]:
    text = from_bytes(text)
    if _has_invisible(text):
        raise ValueError("it has an invisible character")
    before, *parts = _DIVIDER.split(_ESCAPE.sub(_hide, text))
    if before or not text.startswith("/"):
        raise ValueError("it does not begin with / and a known attribute")
    found: list[list[tuple[str, str]]] = []
    for divider, part in zip(parts[::2], parts[1::2], strict=True):
        if divider == "/":
            found.append([])
        found[-1].append(_parsed_pair(part, has_escapes="\\" in text))
    return tuple(tuple(sorted(rdn)) for rdn in found)


def _hide(escape: re.Match[str]) -> str:
    if escape[1] not in _HIDDEN:
        raise ValueError("a backslash may stand only before a backslash, a / or a +")
    return _HIDDEN[escape[1]]


def _parsed_pair(part: str, *, has_escapes: bool) -> tuple[str, str]:
    kind, _, value = part.partition("=")
    # Who escapes one slash escapes all of them, or the text has two readings.
    if _MAYBE_DIVIDER.search(value) or (has_escapes and re.search(r"[/+]", value)):
        raise ValueError(f"{value.translate(_SHOWN)!r} has two readings, escape its / and + by \\")
    value = value.translate(_SHOWN)
    if fault := _fault(value):
        raise ValueError(f"it has {fault}")
    return OIDS.get(kind.lower()) or kind.upper().removeprefix("OID."), value
