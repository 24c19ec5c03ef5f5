"""What OpenSSL's error codes and TLS alerts mean for a person, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import frozen

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

_TELL = "tell its administrator"

_ALERTS: Final = {
    "certificate expired": (
        "your proxy or certificate has expired: make a new one with grid-proxy-init",
        "the server's CRL of your certificate authority has ended, or one of the clocks is"
        f" wrong: {_TELL}",
    ),
    "unknown ca": (
        "you have an old-style proxy (make a new one with grid-proxy-init -rfc), or your file"
        " lacks a certificate of the chain",
        "the server does not trust the certificate authority of your certificate, or has no CRL"
        f" of it: {_TELL}",
    ),
    "certificate revoked": (
        "your certificate was revoked by its certificate authority: ask there for a new one", ""
    ),
    "bad certificate": (
        "a key is too small, a signature too weak, or your proxy not valid yet: set the clock,"
        " and make a new proxy with grid-proxy-init -bits 2048",
        "the server's CRL of your certificate authority is of the future, or one of the clocks is"
        f" wrong: {_TELL}",
    ),
    "unsupported certificate": (
        "your certificate's key usage does not allow this: it must be for clients and for digital"
        " signatures",
        f"the server wants certificates of another purpose: {_TELL}",
    ),
    "certificate required": (
        "the server wants a certificate: make a proxy with grid-proxy-init",
        "it takes none with a key like yours; RSA and P-256 are taken"
        " everywhere",
    ),
    "handshake failure": (
        "the server and this client have no TLS version or cipher in common, or it wants a"
        " certificate that was not shown",
        "",
    ),
    "protocol version": ("the server and this client have no TLS version in common", ""),
    "illegal parameter": (
        "the server and this client disagree about the handshake, perhaps about your key; RSA"
        " and P-256 are taken everywhere",
        "",
    ),
    "decrypt error": (
        "your key and your certificate do not belong together, or a signature in your chain is"
        " wrong: make a new proxy with grid-proxy-init",
        "the server's CRL of your certificate authority, or its certificate there, is not the"
        f" authority's own: {_TELL}",
    ),
    "certificate unknown": (
        "the server could not verify your certificate: a name, a purpose or an extension in its"
        " chain is against a rule",
        f"the server's CRL is not about certificates of this kind: {_TELL}",
    ),
    "access denied": ("the server does not let this certificate in", ""),
    "internal error": (
        f"the server had an internal error during the TLS handshake: {_TELL}", ""
    ),
}  # fmt: skip
"""By alert: what it means if it is for the user to mend, and what if it is not."""

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


_WEAKNESSES: Final = {
    "ee key too small": "its key is too small",
    "ca key too small": "a key in its chain is too small",
    "ca md too weak": "a signature in its chain uses a digest that is too weak",
}
"""What our own OpenSSL finds too weak in what it is to show, at security level 2."""

_IN_WORDS: Final = {
    **_WEAKNESSES,
    "no certificate assigned": "the key is not the certificate's",
    "key values mismatch": "the key is not the certificate's",
}


@frozen
class Sight:
    """What can be seen of a credential that a server has refused.

    :ivar found: the cause, with what helps; empty if none is seen.
    :ivar facts: what is in order.
    """

    found: str
    facts: str


Look = Callable[[str], Sight | None]
"""Look for the cause of an alert, by its name; ``None``: nothing was shown to the server."""


def is_about_credential(reason: str) -> bool:
    """What OpenSSL says is about the credential that was shown, or was to be shown."""
    alert = reason.partition(" alert ")[2]
    return reason in _WEAKNESSES or any(words in alert for words in _ABOUT_CREDENTIALS)


_ABOUT_CREDENTIALS: Final = ("certificate", "unknown ca", "access denied", "decrypt error")


def explain_alert(error: BaseException, look: Look | None = None) -> str:
    """Turn a failed TLS connection into advice.

    Looks into the failures that Twisted and treq wrap around each other.

    :param look: at the user's own credential; ``None``: it is not known.
    :returns: one clause without a full stop; empty if the error is not about TLS.
    """
    for library, reason in _reasons(error, set()):
        if library == _OWN:
            return reason
        alert = "bad certificate" if reason in _WEAKNESSES else reason.partition("alert ")[2]
        if alert in _ALERTS:
            return _explained(alert, look)
        if "wrong version number" in reason or "http request" in reason:
            return "the server does not speak TLS on this port"
        return f"the TLS connection failed ({reason})"
    return ""


def _explained(alert: str, look: Look | None) -> str:
    users, servers = _ALERTS[alert]
    sight = look(alert) if look else None
    if sight is not None and sight.found:
        return sight.found
    if not servers:
        return users
    if sight is None:
        return f"{users}; or {servers}"
    return f'the server says "{alert}", but {sight.facts}; {servers}'


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
