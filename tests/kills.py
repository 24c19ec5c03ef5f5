"""A daemon under load that is killed, again and again, at any moment."""

from __future__ import annotations

import os
import random
import threading
import time

from tests.ledger import Figures, Ledger, kill, restart
from tests.server import Daemon, Person

CLIENTS = 4
"""How many upload, fetch and replace at the same time."""

SIZES = (0, 1, 4000, 70_000, 1_000_000, 6_000_000)
"""Of the files that they upload, in bytes."""

LIFE = 1.5
"""The longest that the daemon lives, in seconds."""


class Load:
    """Clients that upload and fetch until told to stop."""

    def __init__(self, ledger: Ledger, people: list[Person]) -> None:
        self._ledger = ledger
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[person]) for person in people]
        self.wrong = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, person: Person) -> None:
        dice = random.Random(os.urandom(8))
        while not self._over.is_set():
            image = f"image{dice.randrange(3)}"
            if dice.random() < 0.7:
                content = os.urandom(dice.choice(SIZES))
                if not self._ledger.put(person, image, content):
                    return  # it was killed
            elif not self._fetch(person, image):
                return

    def _fetch(self, person: Person, image: str) -> bool:
        try:
            answer = person.ask("GET", f"/api/images/raw/{image}")
        except OSError:
            return False
        # Each client has images of its own: nobody else changes them meanwhile.
        self.wrong += not self._ledger.could_be(person, image, answer)
        return True


def kill_under_load(daemon: Daemon, times: int) -> tuple[Ledger, Figures]:
    """Kill a daemon at random moments, check every promise after each; it must be running."""
    people = [daemon.newcomer() for _ in range(CLIENTS)]
    for person in people:
        for number in range(3):
            person.ask("POST", "/api/images", form={"name": f"image{number}"})
    ledger, figures = Ledger(daemon), Figures()
    for _ in range(times):
        load = Load(ledger, people)
        load.start()
        time.sleep(random.uniform(0, LIFE))
        kill(daemon)
        load.stop()
        figures.heal = max(figures.heal, restart(daemon))
        ledger.wrong += load.wrong
        ledger.check()
    return ledger, figures
