"""What went wrong on the line, in words for a person: what, with which server, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import error as net
from twisted.internet.defer import CancelledError
from zope.interface import Interface

from repoman.errors import (
    BadReply,
    ConnectionProblem,
    CredentialRefused,
    RepomanError,
    TooManyUploads,
    Unavailable,
)
from repoman.gsi.advice import Look, Sight, explain_alert, is_about_credential

_NO_TLS = ("wrong version number", "packet length too long", "http request", "record layer failure")
"""What OpenSSL says when the other side does not speak TLS."""


class ISeesItself(Interface):
    """A policy for TLS that can look for the reason of a refusal in what it shows."""

    def look(alert: str) -> Sight | None:  # noqa: N805 -- an interface's methods have no self
        """See :data:`repoman.gsi.advice.Look`."""


@contextmanager
def in_words(server: str, look: Look | None = None) -> Iterator[None]:
    """Around talk on the line: what Twisted or OpenSSL raise becomes an error of the tree.

    :param server: ``host:port``, for the message.
    :param look: for the reason of a refusal.
    """
    try:
        yield
    except RepomanError:
        raise
    except Exception as error:
        for cause in _causes(error):
            if isinstance(cause, RepomanError | CancelledError):
                raise cause from error
        raise connection_problem(server, error, look) from error


def connection_problem(server: str, error: Exception, look: Look | None = None) -> RepomanError:
    """The error that stands for what Twisted or OpenSSL raised."""
    causes = list(_causes(error))
    if words := explain_alert(error, look):
        # An alert about a certificate is the server's word on ours.
        ours = any(map(is_about_credential, _of_openssl(causes)))
        text = f"No TLS connection with {server}: {words}."
        return CredentialRefused(text) if ours else ConnectionProblem(text)
    for cause in causes:
        for kind, words in _WORDS:
            if isinstance(cause, kind):
                return ConnectionProblem(words.format(server=server))
    # By their names: these classes are private to Twisted.  Its parser raises ValueError, too.
    names = {type(cause).__name__ for cause in causes}
    if "_DataLoss" in names:
        return ConnectionProblem(f"{server}: its answer came broken.")
    if names & {"ParseError", "ValueError"} or _is_no_tls(causes):
        return BadReply(f"{server} does not speak HTTP as we know it; is the port right (-p)?")
    # Whatever else a line that breaks at an odd moment makes Twisted or OpenSSL raise.
    return ConnectionProblem(f"The connection with {server} broke ({_innermost(causes)}).")


def is_passing(error: RepomanError) -> bool:
    """The same request may well succeed in a moment."""
    if isinstance(error, Unavailable | TooManyUploads):
        return True
    return isinstance(error, ConnectionProblem) and not explain_alert(error)


def _causes(error: Any) -> Iterator[BaseException]:
    """``error`` and what it wraps: Twisted's HTTP client wraps lists of Failures."""
    yield error
    for reason in getattr(error, "reasons", ()):
        yield from _causes(getattr(reason, "value", reason))


def _is_no_tls(causes: list[BaseException]) -> bool:
    return any(about in reason for reason in _of_openssl(causes) for about in _NO_TLS)


def _of_openssl(causes: list[BaseException]) -> list[str]:
    """What OpenSSL says in its errors."""
    return [
        str(entry[-1])
        for cause in causes
        for argument in cause.args
        if isinstance(argument, list)
        for entry in argument
        if isinstance(entry, tuple)
    ]


def _innermost(causes: list[BaseException]) -> str:
    return "; ".join(_of_openssl(causes)) or type(causes[-1]).__name__


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (net.DNSLookupError, "There is no host of the name in {server}; name the server with -r."),
    (
        net.ConnectionRefusedError,
        "Nothing listens at {server}; is the server up, and the port right (-p)?",
    ),
    (net.NoRouteError, "There is no network route to {server}."),
    (net.TimeoutError, "{server} does not answer; is the server up, and the port right (-p)?"),
    (net.UserError, "{server} cannot be connected to; are host and port right?"),
    (net.ConnectError, "{server} cannot be connected to."),
    (net.ConnectionLost, "{server} broke the connection before its answer was complete."),
    (net.ConnectionDone, "{server} closed the connection before its answer was complete."),
    (net.ConnectionAborted, "The connection with {server} was given up."),
)
