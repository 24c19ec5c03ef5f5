"""Every event of the log and every metric is produced by a test, and explained to operators.

A new one without a row here fails, and so does a row whose test does not exist, or says
nothing of it.
"""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.server import ROOT

EVENTS = {
    "background.py": {
        "{name}: {reason}": "test_supervised.py::"
        "test_a_configuration_with_mistakes_changes_nothing_and_is_told",
        "{name} failed": "test_events.py::test_faults_of_ours_are_told_with_a_traceback",
    },
    "bounded_log.py": {
        "{line}": "test_events.py::test_who_is_refused_at_the_door_is_told_with_the_address",
        "{n} more such lines were left out": "tls/test_trust_strength.py::"
        "test_case_46_the_log_says_how_much_it_left_out",
    },
    "chores.py": {
        "{count} files in the store are not what was stored": "end_to_end/test_main_job.py::"
        "test_changed_bytes_on_disk_are_found_and_never_deleted",
        **dict.fromkeys(
            (
                "{count} damaged files are whole again",
                "{count} files in the store have no record: is this the right database? "
                "Nothing was touched.",
                "{count} files without a record: see quarantine/",
                "{count} files are missing from the store",
            ),
            "test_events.py::test_a_store_that_is_not_what_the_records_say_is_told_and_counted",
        ),
    },
    "cli/main.py": dict.fromkeys(
        ("{name} begins", "{name} ends: {how}"),
        "cli/test_cli_program.py::test_a_log_is_kept_if_it_is_configured",
    ),
    "database/embedded.py": {
        "PostgreSQL of our own ended: {why}; starting it again": "test_events.py::"
        "test_a_killed_postgresql_is_told_and_so_is_its_return",
    },
    "database/links.py": dict.fromkeys(
        ("The database cannot be reached: {why}", "The database is reached again"),
        "test_events.py::test_a_killed_postgresql_is_told_and_so_is_its_return",
    ),
    "database/pool.py": {
        "A transaction failed after its caller had gone: {why}": "database/test_pool.py::"
        "test_a_refusal_after_its_caller_has_gone_is_one_line",
        "A transaction failed after its caller had gone": "database/test_pool.py::"
        "test_a_failure_after_its_caller_has_gone_is_logged_once",
    },
    "election.py": dict.fromkeys(
        (
            "This daemon does the chores of the repository from now on",
            "Another daemon may do the chores of the repository from now on",
        ),
        "repository/test_many_daemons.py::"
        "test_chores_begin_with_the_election_and_end_when_it_cannot_be_renewed",
    ),
    "repository/audit.py": {
        "A refusal is not in the audit: {reason}": "test_events.py::"
        "test_a_refusal_that_the_audit_did_not_take_is_told",
        "Audit: row {n} has the digest {digest}": "test_events.py::"
        "test_a_start_tells_of_administrators_and_of_the_audit",
    },
    "repository/scrubber.py": {
        "blob {key} was touched or restored: reading it again": "end_to_end/test_rivals.py::"
        "test_a_restored_file_is_read_once_and_served",
        "blob {key} is not what was stored": "test_events.py::"
        "test_bytes_that_were_changed_are_told_when_they_are_asked_for",
    },
    "resources/asking.py": {
        "Request {id} failed": "test_events.py::test_faults_of_ours_are_told_with_a_traceback",
    },
    "metrics.py": {
        "[metrics] cannot listen on {endpoint}: {why}; going on without": "test_monitoring.py::"
        "test_a_monitoring_port_in_use_does_not_stop_the_service",
    },
    "premises.py": {
        "[accounts] admins: {why}": "end_to_end/test_administrators.py::"
        "test_the_administrators_file_undoes_nothing_and_ends_no_start",
        "Administrator {name} created": "test_events.py::"
        "test_a_start_tells_of_administrators_and_of_the_audit",
    },
    "service.py": {
        "Told to stop again: running transfers are cut": "end_to_end/test_stops.py::"
        "test_a_second_signal_stops_at_once_and_keeps_what_came",
        "Waiting for the {what}: {why}": "end_to_end/test_database_absent.py::"
        "test_absent_at_the_start_it_is_waited_for",
        "Certificates, limits and log files were looked at again": "test_events.py::"
        "test_a_reload_tells_what_was_read",
        "{trouble}": "test_monitoring.py::test_readyz_tells_that_trust_could_not_be_reloaded",
        "Trust was reloaded: CAs, CRLs, policies and the host certificate": "test_events.py::"
        "test_a_reload_tells_what_was_read",
        "{name} has changed: that needs a restart": "test_supervised.py::"
        "test_what_needs_a_restart_is_said",
        "{warning}": "tls/test_trust_http.py::test_a_crl_that_ages_is_told_once",
    },
    "workers/crew.py": {
        "Worker {number} ended: {why}; another one begins in {seconds} s": "test_workers.py::"
        "test_connections_that_wait_are_served_by_the_other_when_a_worker_is_killed",
    },
    "workers/employed.py": {
        "Not started": "test_workers.py::"
        "test_a_fault_of_ours_in_all_workers_ends_the_start_with_its_traceback_in_the_log",
    },
    "workers/foreman.py": {
        "Waiting for the {what}: {why}": "end_to_end/test_database_absent.py::"
        "test_absent_at_the_start_it_is_waited_for",
        "{name} has changed: that needs a restart": "test_workers.py::"
        "test_a_configuration_with_mistakes_changes_nothing_and_is_told",
        "Certificates, limits and log files were looked at again": "test_workers.py::"
        "test_the_access_log_is_opened_anew_by_a_reload",
    },
    "workers/worker.py": {
        "Worker {number} was silent and is killed": "test_workers.py::"
        "test_a_silent_worker_is_killed_and_replaced",
    },
    "site.py": {
        "All places are taken, cut: {channel.transport.getPeer()}": "end_to_end/test_crowds.py::"
        "test_nor_does_a_larger_one_from_the_same_address",
        "No PROXY header, cut: {transport.getPeer()}": "test_proxied.py::"
        "test_who_does_not_begin_with_the_header_is_cut_with_a_line",
        "Transfer too slow, cut: {channel.transport.getPeer()}": "test_settings_at_work.py::"
        "test_a_user_runs_as_many_uploads_as_configured_and_not_too_slowly",
        "Timing out client: {channel.transport.getPeer()}": "tls/test_trust_http.py::"
        "test_case_47_half_open_handshakes_are_timed_out",
        "{count} connections cut, to stop": "end_to_end/test_stops.py::"
        "test_a_second_signal_stops_at_once_and_keeps_what_came",
    },
    "storage/flusher.py": {
        "blob store's helper says: {text}": "storage/test_what_is_told.py::"
        "test_a_fault_of_the_helper_process_is_told_in_its_own_words",
        "blob store: the helper process ended: {why}": "test_events.py::"
        "test_a_killed_helper_process_is_told_and_the_next_one_works",
    },
    "storage/reader.py": {
        "blob store: {error}": "storage/test_what_is_told.py::"
        "test_what_the_system_refuses_is_told_of_reading_and_writing",
        "blob {key} is damaged: {why}": "storage/test_what_is_told.py::"
        "test_a_missing_file_is_damage",
    },
    "storage/s3/client.py": {
        "object store: {method} {key} came to nothing: {why}": "on_ceph/test_gateway.py::"
        "test_a_gateway_that_goes_is_told_and_heals",
    },
    "storage/s3/reader.py": {
        "blob {key} is damaged: {why}": "storage/s3/test_s3_told.py::"
        "test_what_is_wrong_with_objects_is_told",
    },
    "storage/s3/replies.py": {
        "object store: {what} was answered {status} {code}: see [storage] in the "
        "configuration": "storage/s3/test_s3_told.py::test_what_is_wrong_with_objects_is_told",
    },
    "storage/s3/writer.py": {
        "blob {key} left to the sweeper: {error}": "storage/s3/test_s3_told.py::"
        "test_what_cannot_be_removed_is_told_and_left",
        "blob {key} was not sent": "storage/s3/test_s3_told.py::"
        "test_a_fault_of_ours_while_sending_is_told_with_a_traceback",
    },
    "storage/writer.py": {
        "blob store: {error}": "storage/test_what_is_told.py::"
        "test_what_the_system_refuses_is_told_of_reading_and_writing",
        "blob {key} left to the sweeper: {error}": "storage/test_what_is_told.py::"
        "test_what_cannot_be_discarded_is_left_to_the_sweeper",
    },
    "tap.py": {
        "Not started: {reason}": "test_tap.py::"
        "test_a_failed_start_is_one_line_and_a_clean_stop_with_status_1",
        "Not started": "test_tap.py::"
        "test_a_fault_of_our_own_at_start_is_one_line_too_and_its_traceback_is_in_the_log",
    },
    "tls.py": {
        "A client is refused from now on: {now.refusal}": "test_events.py::"
        "test_who_is_revoked_on_an_open_connection_is_told",
        **dict.fromkeys(
            (
                "TLS handshake failed: {why}",
                "A client was refused: {peer.refusal}",
                "{line} [{address}]",
            ),
            "test_events.py::test_who_is_refused_at_the_door_is_told_with_the_address",
        ),
    },
}
"""For each event, by the module under ``repoman/`` that says it, the test that makes it do so."""

METRICS = {
    **dict.fromkeys(
        (
            "repoman_requests",
            "repoman_received_bytes",
            "repoman_sent_bytes",
            "repoman_request_seconds",
        ),
        "test_metrics.py::test_requests_their_bytes_and_their_time_are_added_up",
    ),
    **dict.fromkeys(
        ("repoman_connections", "repoman_transfers"),
        "test_metrics.py::test_connections_and_transfers_are_counted_while_they_last",
    ),
    **dict.fromkeys(
        ("repoman_database_connections", "repoman_database_waiting"),
        "test_metrics.py::test_the_pool_tells_who_has_a_connection_and_who_waits",
    ),
    "repoman_workers": "test_workers.py::test_metrics_do_not_go_backwards_when_a_worker_is_killed",
    "repoman_store_bytes": "test_metrics.py::test_room_is_what_the_reserve_leaves",
    "repoman_sweeper_removed_files": "test_metrics.py::test_the_sweeper_counts_what_it_removed",
    "repoman_loop_lag_seconds": "test_metrics.py::"
    "test_a_stall_of_the_loop_is_seen_at_the_next_scrape_and_then_forgotten",
    **dict.fromkeys(
        ("repoman_certificate_days", "repoman_crl_days", "repoman_crl_age_days"),
        "test_metrics.py::test_the_ends_of_certificate_and_crl_are_those_of_the_files",
    ),
    "repoman_store_troubles": "test_events.py::"
    "test_a_store_that_is_not_what_the_records_say_is_told_and_counted",
    "repoman_background_failures": "test_monitoring.py::"
    "test_readyz_tells_that_trust_could_not_be_reloaded",
}
"""For each metric, the test that moves and reads it."""

LEVELS = {"debug", "info", "warn", "error", "critical", "failure"}
TOLD = 6
"""So many characters of an event's own words show that a test speaks of it."""


def said_by_the_code() -> dict[str, set[str]]:
    """The texts of all events of the service log, by module."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "repoman").rglob("*.py"):
        module = str(path.relative_to(ROOT / "repoman"))
        for node in ast.walk(ast.parse(path.read_text())):
            if is_event(node, module):
                text = text_of(node.args[0])
                assert text, f"{module}:{node.lineno}: the text of an event is a literal"
                found.setdefault(module, set()).add(text)
    return found


def is_event(node: ast.AST, module: str) -> bool:
    """Whether this is a call that logs: a Logger's, or a BoundedLog's ``say``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr in ("say", "_say"):  # what the client and the helper say is no event
        return not module.startswith(("cli", "storage"))
    return node.func.attr in LEVELS and "log" in ast.unparse(node.func.value).lower()


def text_of(node: ast.AST) -> str:
    """A literal text, with its holes in braces; empty, if it is something else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    value = node.value if isinstance(node, ast.Constant) else ""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def shown_by_the_code() -> set[str]:
    """The names of all metrics."""
    source = "".join(path.read_text() for path in (ROOT / "repoman").rglob("*.py"))
    return set(re.findall(r'"(repoman_\w+)"', source))


@cache
def words_of(test: str) -> tuple[str, ...]:
    """The pieces of text in a test's code; none, if there is no such test."""
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    bodies = [node for node in tree.body if getattr(node, "name", "") == name]
    return tuple(text for body in bodies for node in ast.walk(body) if (text := text_of(node)))


def speaks_of(test: str, event: str) -> bool:
    """Whether a test says some of an event's own words."""
    own = [words for words in re.split(r"\{[^}]*\}", event) if len(words.strip()) >= TOLD]
    pieces = words_of(test)
    return bool(pieces) and (
        not own
        or any(
            words.strip() in piece or (len(piece) >= TOLD and piece in words)
            for words in own
            for piece in pieces
        )
    )


def test_every_event_has_a_test_that_produces_it() -> None:
    assert {module: set(rows) for module, rows in EVENTS.items()} == said_by_the_code()
    rows = [(event, test) for rows in EVENTS.values() for event, test in rows.items()]
    assert [row for row in rows if not speaks_of(row[1], row[0])] == []


def test_every_metric_has_a_test_that_moves_it() -> None:
    assert set(METRICS) == shown_by_the_code()
    rows = METRICS.items()
    assert [row for row in rows if not any(row[0] in piece for piece in words_of(row[1]))] == []


def test_every_event_of_the_service_log_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    section = text.partition("## What the log says")[2].partition("\n## ")[0]
    told = " ".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    shown = [re.sub(r"\bN\b", "…", one).rstrip("… :") for one in re.findall("`(.*?)`", told)]
    events = {
        re.sub(r"\{[^}]*\}", "…", event)
        for module, events in said_by_the_code().items()
        if not module.startswith("cli")
        for event in events
    }
    bare = {"…", "…: …", "… failed", "… […]"}  # told by what fills them in
    assert [e for e in events - bare if not any(e.startswith(one or "?") for one in shown)] == []
