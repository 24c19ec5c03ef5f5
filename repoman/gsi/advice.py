"""What OpenSSL's error codes and TLS alerts mean for a person, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

VERIFY_ERRORS: Final = {
    2: "the certificate authority is not known",
    7: "a certificate has a wrong signature",
    8: "a CRL has a wrong signature",
    9: "a certificate is not valid yet",
    10: "a certificate has expired",
    11: "a CRL is not valid yet",
    12: "a CRL has expired",
    13: "a certificate's beginning is no time",
    14: "a certificate's end is no time",
    15: "a CRL's beginning is no time",
    16: "a CRL's end is no time",
    18: "the certificate is self-signed",
    19: "the root certificate authority is not trusted",
    20: "the certificate authority is not known",
    21: "the certificate authority is not known",
    22: "the chain is too long",
    23: "a certificate was revoked",
    26: "the certificate is not meant for this purpose",
    36: "a CRL has a critical extension that is not known",
    37: "a certificate authority's certificate was used as an end entity's",
    38: "more proxies follow than one allows",
    39: "a proxy was signed with a key that is not for signatures",
    41: "a certificate has an extension that is malformed or must not be there",
    44: "a CRL is not about this kind of certificate",
    47: "a certificate authority may not issue this name",
    48: "a certificate authority may not issue this name",
    66: "a key is too small",
    67: "a certificate authority's key is too small",
    68: "a signature uses a digest that is too weak",
    72: "a proxy certificate's name is not its issuer's plus one CN",
}
"""OpenSSL's verification errors (X509_V_ERR_...) in words."""

_ALERTS: Final = {
    "certificate expired": "your proxy or certificate has expired: make a new one with"
    " grid-proxy-init",
    "unknown ca": "the server does not trust the certificate authority of your certificate, or you"
    " have an old-style proxy: make a new one with grid-proxy-init -rfc",
    "certificate revoked": "your certificate was revoked by its certificate authority",
    "bad certificate": "the server does not accept your certificate, perhaps because a key is too"
    " small: make a new proxy with grid-proxy-init -bits 2048",
    "unsupported certificate": "your certificate's key usage does not allow this: it must be for"
    " clients and for digital signatures",
    "certificate required": "the server wants a certificate: make a proxy with grid-proxy-init",
    "handshake failure": "the server and this client have no TLS version or cipher in common",
    "protocol version": "the server and this client have no TLS version in common",
    "decrypt error": "your key and your certificate do not belong together",
    "certificate unknown": "the server could not verify your certificate",
    "access denied": "the server does not let this certificate in",
    "internal error": "the server had an internal error during the TLS handshake",
}

_OWN: Final = "repoman"
"""In place of OpenSSL's library name: the text was written by us."""


def own_error(text: str) -> list[tuple[str, str, str]]:
    """The argument of an ``SSL.Error`` of ours, for :func:`explain_alert` to find."""
    return [(_OWN, "", text)]


def reason_of(error: Exception) -> str:
    """What OpenSSL says, in its words.

    :param error: pyOpenSSL's ``SSL.Error``.
    """
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reason = str(entries[-1][2]) if entries else "the connection was lost"
    return _IN_WORDS.get(reason, reason)


_IN_WORDS: Final = {
    "ee key too small": "its key is too small",
    "ca key too small": "a certificate authority's key is too small",
    "ca md too weak": "a signature uses a digest that is too weak",
    "no certificate assigned": "the key is not the certificate's",
    "key values mismatch": "the key is not the certificate's",
}


def explain_alert(error: BaseException) -> str:
    """Turn a failed TLS connection into advice.

    Looks into the failures that Twisted and treq wrap around each other.

    :returns: one clause without a full stop; empty if the error is not about TLS.
    """
    for library, reason in _reasons(error, set()):
        if library == _OWN:
            return reason
        for alert, advice in _ALERTS.items():
            if reason.endswith(f"alert {alert}"):
                return advice
        if "wrong version number" in reason or "http request" in reason:
            return "the server does not speak TLS on this port"
        return f"the TLS connection failed ({reason})"
    return ""


def _reasons(error: Any, seen: set[int]) -> Iterator[tuple[str, str]]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for argument in getattr(error, "args", ()):
        for entry in argument if isinstance(argument, list) else ():
            if isinstance(entry, tuple) and len(entry) == 3:
                yield str(entry[0]), str(entry[2])
    # treq's lists of failures, a Failure's exception, and what an exception was raised from.
    inner = [getattr(error, "value", None), getattr(error, "__cause__", None)]
    reasons = getattr(error, "reasons", None)
    for one in [*(reasons if isinstance(reasons, list) else []), *inner]:
        yield from _reasons(one, seen)
