"""The ``repoman`` program: the only place on the user's side that names the reactor."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from repoman import __version__

if TYPE_CHECKING:
    from repoman.cli.command import Command
    from repoman.client.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and answer its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words
    _mend_streams()
    # Until the reactor takes care of it; the exit code is the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    try:
        try:
            code = _run(words, as_json)
        except KeyboardInterrupt:
            code = _interrupted(as_json)
        sys.stdout.flush()
        return code
    except OSError as error:
        return _unwritten(error, code, as_json)


def _unwritten(error: OSError, code: int, as_json: bool) -> int:
    """Give up printing, and answer the exit code."""
    # Python's own flush at exit must not complain, too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    # Who reads our output may have seen enough; who has failed has said so.
    if code or isinstance(error, BrokenPipeError):
        return code or 1
    from repoman.cli.exits import report

    return report(error, "Writing to standard output.", "", sys.stderr, as_json=as_json)


def _mend_streams() -> None:
    """Standard streams that are there, whoever closed them, and take any text."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 -- for the whole run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(words: Sequence[str], as_json: bool) -> int:
    if words == ["--version"]:
        print(f"repoman {__version__}")
        return 0
    # Imported here: "repoman --version" costs no more than Python itself.
    from repoman.cli.access import find_access
    from repoman.cli.exits import Usage, report
    from repoman.cli.options import parse
    from repoman.cli.output import Output
    from repoman.cli.table import COMMANDS
    from repoman.client.settings import Settings, read_settings
    from repoman.errors import Misconfigured, RepomanError

    doing, access = "Reading the command line.", None
    try:
        command, options = parse(COMMANDS, words)
        if command is None or options.help:
            return _help(command, options)
        doing = command.doing
        command.first(options)
        out = Output(options.json)
        try:
            settings = read_settings(os.environ) if command.configured else Settings()
        except Misconfigured:
            if not command.alone:  # "doctor" says it, and goes on
                raise
            settings = Settings()
        if command.local:
            command.local(options, settings, out)
            return 0
        if command.alone:
            work: Any = partial(command.alone, options=options, settings=settings, out=out)
        else:
            access = find_access(command, options, settings, os.environ, os.getuid())
            work = partial(
                access.work, command=command, options=options, settings=settings, out=out
            )
        code = _with_reactor(work, command.name, settings)
        return _interrupted(as_json) if code is None else code
    except BrokenPipeError:
        raise
    except (RepomanError, OSError) as error:
        problem: Exception = error
    except UnicodeEncodeError as error:
        problem = Usage(f"{error.object[:100]!r} is no text that could be sent.")
    return report(problem, doing, str(access or ""), sys.stderr, as_json=as_json)


def _help(topic: Command | None, options: Any) -> int:
    """Print what was asked for; nothing asked for is a usage error."""
    from repoman.cli import manual
    from repoman.cli.exits import USAGE
    from repoman.cli.table import COMMANDS

    if topic:
        print(manual.page(topic))
    elif options.version:
        print(f"repoman {__version__}")
    elif options.help or options.help_all:
        print(manual.overview(COMMANDS, everything=options.help_all))
    else:
        print(manual.overview(COMMANDS), file=sys.stderr)
        return USAGE
    return 0


def _interrupted(as_json: bool) -> int:
    from repoman.cli.exits import INTERRUPTED, told

    text = "Interrupted."
    print(told(text, "Interrupted", INTERRUPTED) if as_json else text, file=sys.stderr)
    return INTERRUPTED


def _with_reactor(
    work: Callable[[Any], Coroutine[Any, Any, int]], name: str, settings: Settings
) -> int | None:
    """Run the reactor until the work is done; answer its exit code, or ``None`` if interrupted.

    A signal stops the reactor, which cancels the work, which puts its things
    in order.  Whatever the work raises is raised here.
    """
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred
    from twisted.logger import Logger, globalLogBeginner
    from twisted.python.failure import Failure

    from repoman.cli.log import observers
    from repoman.cli.output import printable

    # Not to stderr: a client's troubles are told in its own words.
    log, sinks = Logger("repoman.cli"), observers(settings)
    globalLogBeginner.beginLoggingTo(sinks, redirectStandardIO=False, discardBuffer=True)
    reactor: Any = installed
    outcome: list[Any] = []
    interrupted: list[bool] = []

    def begin() -> None:
        # A line that is cut off is an interruption, too; nohup(1) still has its way.
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reactor.stop))
        log.info("{name} begins", name=name)
        working = Deferred.fromCoroutine(work(reactor))
        working.addBoth(outcome.append)
        reactor.addSystemEventTrigger("before", "shutdown", interrupt, working)
        working.addCallback(lambda _: interrupted or reactor.stop())

    def interrupt(working: Deferred[Any]) -> Deferred[Any] | None:
        if outcome:
            return None
        interrupted.append(True)
        working.cancel()
        return working

    reactor.callWhenRunning(begin)
    reactor.run()
    failure = outcome[0] if outcome and isinstance(outcome[0], Failure) else None
    how = printable(str(failure.value)) if failure else "done"
    log.info("{name} ends: {how}", name=name, how=how)
    if failure and not interrupted:
        failure.raiseException()
    return None if interrupted else int(outcome[0])
