"""``refresh-plugins``: let twistd find its plugins without looking, and without complaining."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from pathlib import Path

from twisted.plugin import IPlugin, getPlugins

from repoman.errors import Misconfigured
from repoman.operator.command import Command


def refresh_plugins(arguments: Namespace) -> int:
    """Write Twisted's cache of plugins.

    :raises Misconfigured: it cannot be written.
    """
    for _ in getPlugins(IPlugin):
        pass  # to look at all of them is what writes the cache
    for place in map(Path, import_module("twisted.plugins").__path__):
        if (place / "repoman_plugin.py").exists():
            _check(place)
    print("The cache of plugins is written.")
    return 0


def _check(place: Path) -> None:
    cache, plugin = place / "dropin.cache", place / "repoman_plugin.py"
    if not cache.exists() or cache.stat().st_mtime < plugin.stat().st_mtime:
        raise Misconfigured(
            [f"{cache} cannot be written: run this as the account that installed Repoman"]
        )


REFRESH = Command(
    refresh_plugins,
    "Write Twisted's cache of plugins, so that twistd says nothing of it on a read-only disk.",
)
