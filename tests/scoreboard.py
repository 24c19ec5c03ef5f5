"""``make scoreboard``: the fault tests, and what each of them showed, as one table.

The promises are zeros: acknowledged uploads lost, wrong bytes served with 200, files left after
one sweep.  Beside them, for each scenario, the longest stall of the reactor that was the daemon's
own doing, the longest wait for an answer that needs no database, and the time to heal.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from attrs import define, field

SCENARIOS = (
    "tests/end_to_end/test_kills.py",
    "tests/end_to_end/test_rivals.py",
    "tests/end_to_end/test_disks.py",
    "tests/end_to_end/test_stops.py",
    "tests/end_to_end/test_hostile_peers.py",
    "tests/end_to_end/test_early_refusals.py",
    "tests/end_to_end/test_database_absent.py",
    "tests/end_to_end/test_database_faults.py",
    "tests/end_to_end/test_database_load.py",
    "tests/end_to_end/test_resumable_uploads.py",
    "tests/end_to_end/test_meanwhile.py",
    "tests/end_to_end/test_conditions.py",
    "tests/end_to_end/test_framing.py",
    "tests/faults",
)
"""Where the fault tests are."""

PROMISES = ("lost", "wrong", "orphans")


@define(eq=False)  # pytest keeps plugins in sets
class Scoreboard:
    """A plugin of pytest that keeps the scores."""

    passed: int = 0
    tried: int = 0
    rows: dict[str, dict[str, float]] = field(factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a case; remember what it showed."""
        if report.when != "call" or report.skipped:
            return
        self.tried += 1
        self.passed += report.passed
        shown = dict(report.user_properties).get("scoreboard")
        if isinstance(shown, dict):
            name = report.nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ")
            self.rows[name] = shown

    def table(self) -> str:
        """What was found, a scenario a line."""
        head = f"{'stall':>8} {'answer':>8} {'heal':>7}  scenario"
        lines = [f"{_shown(row)}  {name}" for name, row in sorted(self.rows.items())]
        return "\n".join([head, *lines, "", *self._totals()])

    def _totals(self) -> list[str]:
        counts = {name: sum(row[name] for row in self.rows.values()) for name in PROMISES}
        worst: dict[str, Any] = {
            name: max((row[name] for row in self.rows.values()), default=0.0)
            for name in ("stall", "answer", "heal")
        }
        return [
            f"cases passed of tried:       {self.passed} of {self.tried}",
            f"acknowledged uploads lost:   {counts['lost']:.0f}",
            f"wrong bytes served with 200: {counts['wrong']:.0f}",
            f"orphans after one sweep:     {counts['orphans']:.0f}",
            f"worst stall of the reactor:  {worst['stall']:.0f} ms",
            f"worst wait for an answer:    {worst['answer']:.2f} s",
            f"worst time to heal:          {worst['heal']:.1f} s",
        ]


def _shown(row: dict[str, float]) -> str:
    """The figures; those that a scenario does not measure as a dash."""
    stall = f"{row['stall']:5.0f} ms" if row["answer"] or row["stall"] else "-"
    answer = f"{row['answer']:6.2f} s" if row["answer"] else "-"
    heal = f"{row['heal']:5.1f} s" if row["heal"] else "-"
    return f"{stall:>8} {answer:>8} {heal:>7}"


def main(paths: list[str]) -> int:
    """Run the fault tests, or those under ``paths``, and print the table."""
    board = Scoreboard()
    status = pytest.main(["-q", *(paths or SCENARIOS)], plugins=[board])
    print(board.table())
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
