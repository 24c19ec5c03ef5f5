"""Cases 34 to 39: what a proxy says of itself, with the legacy option off and on."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.credentials import (
    INDEPENDENT,
    INHERIT_ALL,
    LIMITED,
    Credential,
    Extension,
    Grid,
    der,
    draft_proxy_cert_info,
    end_entity,
    integer,
    octets,
    oid,
    proxy_cert_info,
    seq,
    utf8,
)
from tests.tls.door import HOSTILE, Door

pytestmark = HOSTILE

ROGER = "/C=CA/O=Grid/CN=Roger Impey"
PCI = "1.3.6.1.5.5.7.1.14"
UNKNOWN = Extension("1.2.3.4.5", utf8("unknown"), critical=True)


@pytest.fixture
def roger(grid: Grid) -> Credential:
    return grid.user()


@pytest_twisted.ensureDeferred
async def test_case_34_path_length_respected(door: Door, roger: Credential) -> None:
    await door.welcomes(roger.proxy(path_length=0))
    await door.welcomes(roger.proxy(path_length=1).proxy(path_length=0))
    await door.welcomes(roger.proxy(path_length=1000).proxy())


@pytest_twisted.ensureDeferred
async def test_case_34_path_length_exceeded(door: Door, roger: Credential) -> None:
    await door.refuses(roger.proxy(path_length=0).proxy())
    await door.refuses(roger.proxy(path_length=1).proxy().proxy())
    await door.refuses(roger.proxy().proxy(path_length=0).proxy(path_length=5))
    await door.refuses(roger.draft_proxy(path_length=0).draft_proxy())


@pytest_twisted.ensureDeferred
async def test_case_34_path_lengths_that_mean_unlimited_to_openssl(
    door: Door, roger: Credential
) -> None:
    for length in (-1, -1000, 1001, 2**31, 2**32 - 1, 2**64, 2**200):
        proxy = roger.proxy(path_length=length)
        await door.refuses(proxy)
        await door.refuses(proxy.proxy())


@pytest_twisted.ensureDeferred
async def test_case_35_limited_then_full(door: Door, roger: Credential) -> None:
    await door.refuses(roger.proxy(limited=True).proxy())
    await door.refuses(roger.proxy().proxy(limited=True).proxy())
    await door.refuses(roger.legacy_proxy(limited=True).legacy_proxy())
    await door.refuses(roger.draft_proxy(limited=True).draft_proxy())


@pytest_twisted.ensureDeferred
async def test_case_35_not_by_changing_the_flavour(door: Door, roger: Credential) -> None:
    makers = ["proxy", "legacy_proxy", "draft_proxy"]
    for first in makers:
        for second in makers:
            if first != second:
                await door.refuses(getattr(getattr(roger, first)(limited=True), second)())
                await door.refuses(getattr(getattr(roger, first)(), second)())


@pytest_twisted.ensureDeferred
async def test_case_36_independent(door: Door, roger: Credential) -> None:
    for proxy in (roger.proxy(language=INDEPENDENT), roger.proxy(language=INDEPENDENT).proxy()):
        assert "independent" in await door.refuses(proxy)
    await door.refuses(roger.draft_proxy(info=draft_proxy_cert_info(INDEPENDENT)))


@pytest_twisted.ensureDeferred
async def test_case_37_unknown_language(door: Door, roger: Credential) -> None:
    for language in ("1.3.6.1.5.5.7.21.0", "1.2.3.4", INHERIT_ALL + ".1", LIMITED + ".1"):
        await door.refuses(roger.proxy(language=language))
        await door.refuses(roger.proxy(language=language).proxy())
        await door.refuses(roger.draft_proxy(info=draft_proxy_cert_info(language)))


@pytest_twisted.ensureDeferred
async def test_case_37_a_policy_with_octets(door: Door, roger: Credential) -> None:
    for language in (INHERIT_ALL, LIMITED, "1.2.3.4"):
        for policy in (b"", b"\x00", b"may do nothing"):
            await door.refuses(roger.proxy(info=proxy_cert_info(language, policy=policy)))


@pytest_twisted.ensureDeferred
async def test_case_38_not_critical(door: Door, roger: Credential) -> None:
    await door.refuses(roger.proxy(info=proxy_cert_info(critical=False)))
    await door.refuses(roger.proxy(info=proxy_cert_info(critical=False)).proxy())
    await door.refuses(roger.draft_proxy(info=draft_proxy_cert_info(critical=False)))


GARBAGE = {
    "nothing": b"",
    "no DER": b"\xff\xff",
    "empty": seq(),
    "null": b"\x05\x00",
    "text": utf8("inherit all"),
    "no language": seq(seq()),
    "language only": seq(oid(INHERIT_ALL)),
    "two policies": seq(seq(oid(INHERIT_ALL)), seq(oid(LIMITED))),
    "two lengths": seq(integer(1), integer(2), seq(oid(INHERIT_ALL))),
    "length last": seq(seq(oid(INHERIT_ALL)), integer(1)),
    "length tagged as in the draft": seq(seq(oid(INHERIT_ALL)), der(0xA1, integer(0))),
    "length not minimal": seq(der(2, b"\x00\x01"), seq(oid(INHERIT_ALL))),
    "length empty": seq(der(2), seq(oid(INHERIT_ALL))),
    "length boolean": seq(der(1, b"\xff"), seq(oid(INHERIT_ALL))),
    "bytes after it": seq(seq(oid(INHERIT_ALL))) + b"\x00",
    "another after it": seq(seq(oid(INHERIT_ALL))) * 2,
    "bytes inside": seq(seq(oid(INHERIT_ALL), octets(b""), octets(b""))),
    "indefinite length": b"\x30\x80" + seq(oid(INHERIT_ALL)) + b"\x00\x00",
    "length of length": b"\x30\x81\x0c" + seq(oid(INHERIT_ALL)),
    "cut off": seq(seq(oid(INHERIT_ALL)))[:-1],
    "a set": der(0x31, seq(oid(INHERIT_ALL))),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest_twisted.ensureDeferred
async def test_case_38_garbage(door: Door, roger: Credential, garbage: str) -> None:
    proxy = roger.proxy(info=Extension(PCI, GARBAGE[garbage], critical=True))
    await door.refuses(proxy)
    await door.refuses(proxy.proxy())


@pytest.mark.parametrize("garbage", [name for name in GARBAGE if "draft" not in name])
@pytest_twisted.ensureDeferred
async def test_case_38_garbage_in_the_draft(door: Door, roger: Credential, garbage: str) -> None:
    info = Extension("1.3.6.1.4.1.3536.1.222", GARBAGE[garbage], critical=True)
    await door.refuses(roger.draft_proxy(info=info))


@pytest_twisted.ensureDeferred
async def test_case_38_twice(door: Door, roger: Credential) -> None:
    for more in ([proxy_cert_info()], [proxy_cert_info(LIMITED)], [draft_proxy_cert_info()]):
        await door.refuses(roger.proxy(more=more))


@pytest_twisted.ensureDeferred
async def test_case_39_an_unknown_critical_extension(
    door: Door, grid: Grid, roger: Credential
) -> None:
    for make in ("proxy", "legacy_proxy", "draft_proxy"):
        await door.refuses(getattr(roger, make)(more=[UNKNOWN]))
        await door.refuses(getattr(getattr(roger, make)(more=[UNKNOWN]), make)())
    user = end_entity(ROGER, grid.ca, more=[UNKNOWN])
    for credential in (user, user.proxy(), user.legacy_proxy(), user.draft_proxy()):
        await door.refuses(credential)


@pytest_twisted.ensureDeferred
async def test_case_39_an_unknown_extension_that_is_not_critical(
    door: Door, grid: Grid, roger: Credential
) -> None:
    harmless = Extension("1.2.3.4.5", utf8("harmless"))
    await door.welcomes(roger.proxy(more=[harmless]))
    await door.welcomes(end_entity(ROGER, grid.ca, more=[harmless]).proxy())
