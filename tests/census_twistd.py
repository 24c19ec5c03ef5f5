"""twistd that counts, when it gets SIGUSR2, what it holds: Deferreds, timers, readers.

Run as a program, with twistd's own arguments; ``CENSUS_FILE`` names the file that the count is
written to, as JSON, under another name first.
"""

from __future__ import annotations

import gc
import json
import os
import signal


def count() -> None:
    """Write what there is now."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    gc.collect()
    found = {
        "deferreds": sum(1 for thing in gc.get_objects() if isinstance(thing, Deferred)),
        "timers": len(reactor.getDelayedCalls()),
        "readers": len(reactor.getReaders()),
        "objects": len(gc.get_objects()),
    }
    path = os.environ["CENSUS_FILE"]
    with open(path + ".new", "w") as file:
        json.dump(found, file)
    os.rename(path + ".new", path)


def main() -> None:
    """Run twistd."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    def ready() -> None:
        signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(count))

    reactor.callWhenRunning(ready)
    run()


if __name__ == "__main__":
    main()
