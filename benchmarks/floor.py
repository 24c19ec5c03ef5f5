"""What nobody in our place can do without: CPU-seconds per GiB of each step alone.

    python benchmarks/floor.py [--size 1GiB]

Encryption by OpenSSL through a memory BIO, as pyOpenSSL hands it out and as
repoman.tls_flow takes it; the copy from the page cache; the send over
loopback; SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from OpenSSL import SSL
from peers import GIB

from repoman import tap, tls_flow
from repoman.settings import size
from repoman.streams import CHUNK
from tests.credentials import Grid

SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
CONTENT = memoryview(os.urandom(CHUNK))


def per_gib(step: Callable[[], object], length: int) -> float:
    """CPU-seconds per GiB of a step that moves CHUNK bytes."""
    for _ in range(16):
        step()
    begun = time.process_time()
    for _ in range(length // CHUNK):
        step()
    return (time.process_time() - begun) * GIB / (length // CHUNK * CHUNK)


def connected(place: Path, suite: str) -> SSL.Connection:
    """The server's end of a TLS connection that is through with its handshake."""
    certificate, key = Grid(place).host("localhost")
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(suite.encode())
    context.use_certificate_file(str(certificate))
    context.use_privatekey_file(str(key))
    server, client = SSL.Connection(context, None), SSL.Connection(context, None)
    server.set_accept_state()
    client.set_connect_state()
    for one, other in [(client, server), (server, client)] * 3:
        with suppress(SSL.WantReadError):
            one.do_handshake()
        with suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(1 << 16))
    assert server.get_cipher_name() == suite
    return server


def encrypt(server: SSL.Connection) -> None:
    """Encrypt CHUNK bytes, a record at a time."""
    sent = 0
    while sent < CHUNK:
        sent += server.send(CONTENT[sent:])


def encrypt_into_objects(server: SSL.Connection) -> Callable[[], None]:
    """Encrypt, and take the ciphertext as pyOpenSSL has it."""

    def step() -> None:
        encrypt(server)
        with suppress(SSL.WantReadError):
            while True:
                server.bio_read(CHUNK + 4096)

    return step


def encrypt_in_place(server: SSL.Connection) -> Callable[[], None]:
    """Encrypt, and take the ciphertext as the daemon does."""

    def step() -> None:
        encrypt(server)
        while tls_flow.take_ciphertext(server):
            pass

    return step


@contextmanager
def sending() -> Iterator[Callable[[], None]]:
    """Send over loopback to a process that throws everything away."""
    listening = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        taken, dropped = listening.accept()[0], bytearray(CHUNK)
        while taken.recv_into(dropped):
            pass
        os._exit(0)
    with socket.create_connection(listening.getsockname()) as out:
        yield lambda: out.sendall(CONTENT)
    os.wait()


@contextmanager
def reading(place: Path) -> Iterator[Callable[[], None]]:
    """Read a cached file."""
    (place / "cached").write_bytes(CONTENT)
    with (place / "cached").open("rb", buffering=0) as file:
        into = [bytearray(CHUNK)]
        yield lambda: os.preadv(file.fileno(), into, 0) and None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=size, default=GIB)
    length = parser.parse_args().size

    def show(what: str, step: Callable[[], object]) -> None:
        print(f"  {per_gib(step, length):5.2f}  {what}")

    print("CPU-s per GiB")
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        show("TLS, ciphertext as objects", encrypt_into_objects(connected(place, SUITES[0])))
        tap.keep_freed_memory()
        show("... freed memory kept", encrypt_into_objects(connected(place, SUITES[0])))
        for suite in SUITES:
            show(f"... {suite}, taken in place", encrypt_in_place(connected(place, suite)))
        with reading(place) as step:
            show("a read from the page cache", step)
        with sending() as step:
            show("a send over loopback", step)
        show("SHA-256", lambda: hashlib.sha256(CONTENT))


if __name__ == "__main__":
    main()
