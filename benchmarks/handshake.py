"""What a full handshake with a two-level proxy costs the server, beside a bare mutual one.

Both ends in memory, RSA-2048 throughout, TLS 1.3, no network.  Bare: OpenSSL
verifies a client's end-entity certificate against one CA.  Ours: a proxy of a
proxy, with CRLs, and the whole pass over the verified chain to an identity.
Only the server's steps are timed.  The person comes again and again with one proxy, as people
do; what the first time costs, when the whole pass has to be made, is told as well.

    python benchmarks/handshake.py [--count 300]

The ratio comes last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import peers as _peers  # noqa: F401 finds the checkout
from OpenSSL import SSL

from repoman.tls import ServerTLS, TlsSettings
from tests.credentials import Credential, Grid, rsa_key
from tests.tls.door import client_context


def bare_server(grid: Grid) -> SSL.Context:
    """Mutual TLS and nothing else."""
    certificate, key = grid.host("localhost")
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(str(certificate))
    context.use_privatekey_file(str(key))
    context.load_verify_locations(str(next(grid.directory.path.glob("*.0"))))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    return context


def handshake(
    server: SSL.Connection, context: SSL.Context, done: Callable[[SSL.Connection], object]
) -> float:
    """CPU-seconds of the server's steps of one handshake."""
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    spent, complete = 0.0, False
    while not complete:
        step(client)
        move(client, server)
        begun = time.process_time()
        complete = step(server)
        if complete:
            done(server)
        spent += time.process_time() - begun
        move(server, client)
    return spent


def step(end: SSL.Connection) -> bool:
    """Go on with the handshake; answer whether it is complete."""
    try:
        end.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def move(one: SSL.Connection, other: SSL.Connection) -> None:
    """What one end has to say, to the other."""
    try:
        while True:
            other.bio_write(one.bio_read(2**16))
    except SSL.WantReadError:
        pass


def main() -> None:
    """Measure and print; the ratio last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as place:
        grid = Grid(Path(place))
        certificate, key = grid.host("localhost")
        settings = TlsSettings(certificate, key, grid.directory.path)
        tls = ServerTLS(settings, lambda: datetime.now(timezone.utc))
        tls.load()
        user = grid.user(key=rsa_key("user"))
        proxy = user.proxy(key=rsa_key("one")).proxy(key=rsa_key("two"))
        bare = bare_server(grid)
        compare(tls, bare, user, proxy, count)


def compare(
    tls: ServerTLS, bare: SSL.Context, user: Credential, proxy: Credential, count: int
) -> None:
    """Let the two take turns."""
    with_proxy = client_context(proxy, version=SSL.TLS1_3_VERSION)
    with_user = client_context(user, version=SSL.TLS1_3_VERSION)
    found: dict[str, list[float]] = {"bare": [], "ours": [], "first": []}

    def judge(connection: SSL.Connection) -> None:
        assert tls.peer(connection).identity is not None

    for _ in range(count):
        found["bare"].append(handshake(SSL.Connection(bare, None), with_user, lambda c: None))
        found["ours"].append(handshake(tls.serverConnectionForTLS(None), with_proxy, judge))
    for _ in range(count):
        new = user.proxy(key=rsa_key("one")).proxy(key=rsa_key("two"))
        shown = client_context(new, version=SSL.TLS1_3_VERSION)
        found["first"].append(handshake(tls.serverConnectionForTLS(None), shown, judge))
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"server's CPU per full handshake, medians of {count}")
    for name, median in medians.items():
        print(f"  {name:5} {median * 1000:6.2f} ms")
    print(f"ratio {medians['ours'] / medians['bare']:.2f}")


if __name__ == "__main__":
    main()
