"""Case 55 again, and more: certificates that no ordinary client can send.

OpenSSL does not read them, so a client made with it takes a twin of the same
length, which is exchanged on the wire.  In TLS 1.3 the client's certificate is
encrypted, and that is too hard for a smuggler.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL

from tests.credentials import Credential, Grid, der, end_entity, rdn, rdns
from tests.tls.door import Door

GRID = rdns("/C=CA/O=Grid")


@pytest.fixture
def version() -> int:
    return SSL.TLS1_2_VERSION


UNREADABLE = {
    "octets": rdn(("CN", der(0x04, b"Roger Impey"))),
    "integer": rdn(("CN", der(0x02, b"\x07"))),
    "broken UTF-8": rdn(("CN", der(0x0C, b"Roger\xff"))),
    "overlong UTF-8": rdn(("CN", der(0x0C, b"Roger\xc0\xaf"))),
    "odd BMP": rdn(("CN", der(0x1E, b"\0R\0"))),
    "surrogate in BMP": rdn(("CN", der(0x1E, b"\xd8\x00"))),
    "broken universal": rdn(("CN", der(0x1C, b"\xff\xff\xff\xff"))),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest_twisted.ensureDeferred
async def test_case_55_names_that_openssl_does_not_read(door: Door, grid: Grid, name: str) -> None:
    length = len(UNREADABLE[name]) - len(rdn(("CN", "")))
    user = grid.user()
    true, false = rdn(("CN", "x" * length)), UNREADABLE[name]
    for make in (lambda last: end_entity(GRID + last, grid.ca, key=user.key, serial=7),
                 lambda last: user.proxy(name=user.subject + last, serial=7)):  # fmt: skip
        await door.refuses(make(true), smuggle=(make(true).der, make(false).der))


@pytest_twisted.ensureDeferred
async def test_numbers_and_times_that_openssl_does_not_read(door: Door, grid: Grid) -> None:
    odd: list[dict[str, Any]] = [
        {"encoded_serial": der(2, octets)} for octets in (b"\0\5", b"\xff\xff", b"")
    ]
    odd += [{"ends": der(0x17, text)} for text in (b"4001010000Z", b"400101000000", b"")]
    for bent in odd:
        user = grid.user()
        for make in (end_entity, Credential.proxy):
            false = _made(make, user, grid, 20, **bent)
            short = len(_made(make, user, grid, 20).der) - len(false.der)
            await door.refuses(
                true := _made(make, user, grid, 20 - short), smuggle=(true.der, false.der)
            )


def _made(make: Any, user: Credential, grid: Grid, length: int, **bent: Any) -> Credential:
    last, bent = rdn(("CN", "x" * length)), {"serial": 7, **bent}
    if make is end_entity:
        return end_entity(GRID + last, grid.ca, key=user.key, **bent)
    return user.proxy(name=user.subject + last, **bent)
