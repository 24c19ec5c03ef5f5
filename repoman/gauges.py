"""What monitoring sees of the parts: read off them at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from repoman.assembly import Assembly
from repoman.database.pool import Pool
from repoman.interfaces import Clock
from repoman.metrics import Metrics
from repoman.site import RepositorySite
from repoman.tls import ServerTLS

DAY = 86400.0

Sites = Sequence[RepositorySite]


def watch_traffic(metrics: Metrics, sites: Sites) -> None:
    """Connections and transfers."""

    def transfers() -> Mapping[str, float]:
        running = [transfer.direction for site in sites for transfer in site.transfers()]
        return {"upload": 0, "download": 0} | Counter(running)

    metrics.show("repoman_transfers", "Transfers running now", transfers, "direction")
    metrics.show(
        "repoman_connections",
        "Connections open now",
        lambda: {"": sum(site.open_connections for site in sites)},
    )


def watch_database(metrics: Metrics, pool: Pool) -> None:
    """The pool of connections to PostgreSQL."""
    metrics.show(
        "repoman_database_connections",
        "Connections to PostgreSQL, free or in use",
        lambda: {"free": pool.free, "used": len(pool) - pool.free},
        "state",
    )
    metrics.show(
        "repoman_database_waiting",
        "Transactions that wait for a connection",
        lambda: {"": pool.waiting},
    )


def watch_store(metrics: Metrics, assembly: Assembly) -> None:
    """The store's room, and what the sweeper found."""
    store, sweeper = assembly.store, assembly.sweeper
    metrics.show(
        "repoman_store_bytes",
        "Room of the store: left above the reserve, and in all",
        lambda: {"free": store.room().free, "total": store.room().total},
        "room",
    )
    metrics.show(
        "repoman_sweeper_removed_files",
        "Files that the sweeper has removed since the start",
        lambda: {"": sweeper.removed},
    )
    metrics.show(
        "repoman_store_troubles",
        "Files found at the last comparison of store and records",
        lambda: {
            "quarantined": sweeper.found.quarantined,
            "missing": sweeper.found.damaged,
            "suspicious": sweeper.found.suspicious,
        },
        "kind",
    )


def watch_trust(metrics: Metrics, tls: ServerTLS, clock: Clock) -> None:
    """How long certificates and CRLs still hold."""

    def until(moment: datetime | None) -> float:
        return (moment - clock()).total_seconds() / DAY if moment else float("inf")

    def crls(value: Callable[[datetime, datetime | None], float]) -> dict[str, float]:
        found = {}
        for authority in tls.directory.authorities:
            for crl in [file.crl for file in authority.crls if file.crl is not None]:
                found[authority.dn] = value(crl.last_update_utc, crl.next_update_utc)
        return found

    metrics.show(
        "repoman_certificate_days",
        "Days until the host certificate ends",
        lambda: {"": until(tls.host.certificate.not_valid_after_utc)} if tls.host else {},
    )
    metrics.show(
        "repoman_crl_days",
        "Days until a CA's CRL must be replaced",
        lambda: crls(lambda issued, ends: until(ends)),
        "ca",
    )
    metrics.show(
        "repoman_crl_age_days",
        "Days since a CA's CRL was issued",
        lambda: crls(lambda issued, ends: -until(issued)),
        "ca",
    )
