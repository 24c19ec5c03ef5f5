"""Failed handshakes become advice."""

from __future__ import annotations

import pytest
from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from repoman.gsi.advice import explain_alert, own_error

ALERTS = {
    "certificate expired": "make a new one with grid-proxy-init",
    "unknown ca": "old-style proxy",
    "certificate revoked": "revoked",
    "bad certificate": "key is too small",
    "unsupported certificate": "key usage",
    "certificate required": "make a proxy with grid-proxy-init",
    "handshake failure": "no TLS version or cipher in common",
    "protocol version": "no TLS version in common",
}


@pytest.mark.parametrize("alert", ALERTS)
@pytest.mark.parametrize("prefix", ["tls alert", "tlsv1 alert", "ssl/tls alert", "sslv3 alert"])
def test_alerts_by_every_name_that_openssl_gave_them(alert: str, prefix: str) -> None:
    error = SSL.Error([("SSL routines", "", f"{prefix} {alert}")])
    assert ALERTS[alert] in explain_alert(error)


def test_through_what_twisted_and_treq_wrap_around_it() -> None:
    inner = SSL.Error([("SSL routines", "", "tls alert certificate revoked")])
    outer = ResponseNeverReceived([Failure(RuntimeError("x")), Failure(inner)])
    assert "revoked" in explain_alert(outer)
    cause = RuntimeError("y")
    cause.__cause__ = outer
    assert "revoked" in explain_alert(cause)


def test_our_own_words_come_through() -> None:
    assert explain_alert(SSL.Error(own_error("the server is not it"))) == "the server is not it"


def test_what_is_not_about_tls() -> None:
    for error in (RuntimeError("x"), OSError(2, "no"), ResponseNeverReceived([])):
        assert explain_alert(error) == ""


def test_what_nobody_knows_is_told_as_it_is() -> None:
    error = SSL.Error([("SSL routines", "", "bad ecpoint")])
    assert explain_alert(error) == "the TLS connection failed (bad ecpoint)"


def test_it_ends_even_in_a_circle() -> None:
    error = RuntimeError("x")
    error.__cause__ = ResponseNeverReceived([Failure(error)])
    assert explain_alert(error) == ""
