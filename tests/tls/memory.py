"""A real handshake without a network, at once: for properties that need hundreds."""

from __future__ import annotations

from OpenSSL import SSL

from repoman.tls import Peer, ServerTLS
from tests.credentials import Credential
from tests.tls.door import client_context


def shake_hands(tls: ServerTLS, credential: Credential, version: int) -> Peer | str:
    """What the server makes of a client, or its alert."""
    server = tls.serverConnectionForTLS(None)
    server.set_accept_state()
    client = SSL.Connection(client_context(credential, version=version), None)
    client.set_connect_state()
    try:
        for _ in range(10):
            _goes_on(client, server)
            if _goes_on(server, client):
                return tls.peer(server)
    except SSL.Error as error:
        return str(error)
    return "no end of it"


def _goes_on(one: SSL.Connection, other: SSL.Connection) -> bool:
    """Take what has come, answer; say whether the handshake is complete."""
    try:
        one.do_handshake()
        return True
    except SSL.WantReadError:
        return False
    finally:
        try:
            while True:
                other.bio_write(one.bio_read(2**16))
        except SSL.WantReadError:
            pass
