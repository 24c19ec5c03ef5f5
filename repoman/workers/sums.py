"""The metrics of several processes as one's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LEAST = {"repoman_certificate_days", "repoman_crl_days"}
"""Of these the least counts: the first to end."""

MOST = {
    "repoman_loop_lag_seconds", "repoman_crl_age_days", "repoman_store_bytes",
    "repoman_store_troubles",
}  # fmt: skip
"""Of these the most: each process sees the whole, or the worst is what matters."""

GROWING = {"repoman_sweeper_removed_files"}
"""Gauges that only grow, as counters do."""

Families = Sequence[Metric]


def read(text: str) -> Families:
    """The families of an exposition."""
    return list(text_string_to_metric_families(text))


def lasting(families: Families) -> Families:
    """What must not be forgotten with its process: all that only grows."""
    return [
        one
        for one in families
        if one.type in ("counter", "histogram") or one.name in GROWING or _is_date(one.name)
    ]


def total(processes: Iterable[Families]) -> Families:
    """One family of each name.

    Values of one name and the same labels are added up, or the least or the most of them counts.
    """
    found: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (one for families in processes for one in families):
        found.setdefault(family.name, family)
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            sums[key] = _join(family.name, sums[key], sample.value) if key in sums else sample.value
    return [_family(family, values[name]) for name, family in found.items()]


def exposition(families: Families) -> bytes:
    """Families in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    return bytes(generate_latest(registry))


class _Given(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _is_date(name: str) -> bool:
    return name.endswith("_created")


def _join(name: str, one: float, other: float) -> float:
    if name in LEAST or _is_date(name):
        return min(one, other)
    return max(one, other) if name in MOST else one + other


def _family(family: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    summed = Metric(family.name, family.documentation, family.type)
    for (name, labels), value in values.items():
        summed.add_sample(name, dict(labels), value)
    return summed
