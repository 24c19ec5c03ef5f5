"""The house stays as docs/architecture.md draws it: checked on the source, by ast."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "repoman").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}

LONGEST = 400
"""Lines of the longest module."""

CORE = {
    "repoman", "audit", "errors", "model", "policy", "holders", "interfaces", "reach",
    "records", "user_records", "texts", "transfers",
}  # fmt: skip
VOCABULARY = {"wire", "gsi", "config", "settings"}

# Each part of the package, and the parts that it may import, besides its own modules.
MAY_IMPORT = {
    "repoman": set(),
    "errors": set(),
    "audit": set(),
    "transfers": set(),
    "model": {"errors"},
    "holders": {"model"},
    "interfaces": CORE,
    "records": CORE,
    "user_records": CORE,
    "texts": {"errors"},
    "policy": CORE,
    "reach": {"model"},
    "wire": CORE,
    "gsi": CORE,
    "settings": set(),
    "config": CORE | {"settings"},
    "ciphers": set(),
    "bounded_log": set(),
    "tls": CORE | VOCABULARY | {"ciphers", "bounded_log", "tls_store"},
    "tls_store": CORE | {"gsi"},
    "tls_public": CORE | {"tls"},
    "streams": CORE,
    "holes": set(),
    "atomic_files": {"errors"},
    "tls_flow": set(),
    "body": CORE | {"streams"},
    "lingering": set(),
    "framing": set(),
    "request": CORE | VOCABULARY | {"body", "lingering"},
    "crowd": set(),
    "patience": {"tls_flow"},
    "delivery": {"tls_flow"},
    "channel": CORE
    | VOCABULARY
    | {"crowd", "delivery", "framing", "lingering", "patience", "request"},
    "site": CORE | VOCABULARY | {"bounded_log", "channel", "crowd", "lingering", "request"},
    "storage": CORE | VOCABULARY | {"holes", "streams", "tls_public", "tls_flow"},
    "database": CORE | VOCABULARY,
    "repository": CORE,
    "resources": CORE | {"wire", "gsi", "repository"},
    "pages": CORE | {"wire", "gsi", "settings", "history", "repository", "resources"},
    "client": CORE
    | {"wire", "gsi", "tls", "tls_public", "tls_flow", "streams", "holes", "atomic_files"},
    "cli": CORE | {"client", "atomic_files"},
    "background": CORE,
    "supervisor": set(),
    "stopping": set(),
    "accesslog": CORE,
    "metrics": {"site"},
    "history": set(),
    "admins": CORE | {"gsi", "repository"},
    "gridmap": CORE | {"gsi"},
    "inspection": CORE | VOCABULARY | {"tls"},
    "assembly": CORE | {"config", "database", "repository", "storage", "streams"},
    "proxied": set(),
    "premises": CORE | {"admins", "assembly", "config", "database", "storage"},
    "gauges": CORE | {"assembly", "database", "gsi", "metrics", "site", "tls"},
    "election": set(),
    "chores": CORE | {"assembly", "background", "election", "repository"},
    "original": CORE | {"gsi"},
    "operator": CORE
    | {
        "atomic_files",
        "config",
        "admins",
        "gridmap",
        "holes",
        "inspection",
        "original",
        "assembly",
        "database",
        "repository",
        "settings",
        "storage",
        "streams",
    },
    "tap": CORE | {"config", "service", "workers"},
}
# service.py is the one place that knows everyone; only the user's side is none of its business.
MAY_IMPORT["service"] = set(MAY_IMPORT) - {"client", "cli", "tap"}
MAY_IMPORT["workers"] = MAY_IMPORT["service"] | {"service"}

MAY_NAME_THE_REACTOR = {"repoman.tap", "repoman.cli.main"}
MAY_IMPORT_OPENSSL = {"repoman.tls", "repoman.tls_store", "repoman.tls_public", "repoman.tls_flow"}
MAY_USE_PRIVATES_OF_TWISTED_WEB = {"repoman.channel", "repoman.request"}

THREADS = (
    r"(threading|_thread|concurrent|multiprocessing|asyncio|twisted\.internet\.threads"
    r"|twisted\.python\.(threadpool|threadable)|twisted\._threads)(\.|$)"
)
THREAD_CALLS = {"deferToThread", "callInThread", "getThreadPool", "to_thread"}

SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM\s|INSERT\s+INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s"
    r"|CREATE\s+(TABLE|INDEX)\s|ALTER\s+TABLE\s|WITH\s+\w+\s+AS\s*\()",
    re.DOTALL,
)


def part(module: str) -> str:
    """The part of the package that a module belongs to: ``repoman.gsi.dn`` to ``gsi``."""
    return module.split(".")[1] if "." in module else module


def imports(module: str) -> Iterator[str]:
    """The full names of what a module imports, at its top or anywhere inside."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_module(name: str) -> str | None:
    """The module of ours that an imported name is, or is in."""
    if name.split(".")[0] != "repoman":
        return None
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The text constants of a module that are not documentation, each with its line."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documentation:
            continue
        if isinstance(node.value, str):
            yield node.lineno, node.value


def public(
    name: str, node: ast.Module | ast.ClassDef
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    """A module or class, and the public classes and functions in it."""
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if child.name.startswith("_"):
                continue
            if isinstance(child, ast.ClassDef):
                yield from public(f"{name}.{child.name}", child)
            else:
                yield f"{name}.{child.name}", child


def importing(pattern: str, allowed: Set[str] = frozenset()) -> list[str]:
    """The modules, but for the allowed ones, that import what matches: ``module: name``."""
    return [
        f"{module}: {name}"
        for module in MODULES
        if module not in allowed
        for name in imports(module)
        if re.match(pattern, name)
    ]


def test_there_is_something_to_check() -> None:
    assert {"repoman.errors", "repoman.config", "repoman.gsi", "repoman.tap"} <= set(MODULES)


def test_every_part_has_its_place() -> None:
    assert {part(module) for module in MODULES} <= set(MAY_IMPORT)


def test_the_drawing_shows_every_part() -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    parts = {part(module) for module in MODULES} - {"repoman"}
    assert {one for one in parts if not re.search(rf"^  {one}(\.py|/) ", drawn, re.M)} == set()


def test_imports_go_one_way() -> None:
    wrong = [
        f"{module}: {own}"
        for module in MODULES
        for name in imports(module)
        if (own := own_module(name))
        and part(own) not in MAY_IMPORT[part(module)] | {part(module), "repoman"}
    ]
    assert wrong == []


def test_imports_go_in_no_circle() -> None:
    left = {
        module: {own for name in imports(module) if (own := own_module(name))} - {module, "repoman"}
        for module in MODULES
    }
    while free := {module for module, needed in left.items() if not needed & left.keys()}:
        left = {module: needed for module, needed in left.items() if module not in free}
    assert sorted(left) == []


def test_there_are_no_threads() -> None:
    assert importing(THREADS) == []
    calls = [
        f"{module}:{node.lineno}: {name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
        and (name := node.attr if isinstance(node, ast.Attribute) else node.id) in THREAD_CALLS
    ]
    assert calls == []


def test_the_reactor_is_an_argument() -> None:
    assert importing(r"twisted\.internet\.reactor$", MAY_NAME_THE_REACTOR) == []


def test_only_tls_touches_openssl() -> None:
    assert importing(r"OpenSSL(\.|$)", MAY_IMPORT_OPENSSL) == []


def test_only_the_channel_touches_privates_of_twisted_web() -> None:
    private = r"(twisted\.web|klein|treq)\.(.*\.)?_[a-z]"
    assert importing(private, MAY_USE_PRIVATES_OF_TWISTED_WEB) == []
    # ruff finds private attributes; here is seen who lets them pass.
    waived = {module for module, path in MODULES.items() if "noqa: SLF" in path.read_text()}
    assert waived <= MAY_USE_PRIVATES_OF_TWISTED_WEB | MAY_IMPORT_OPENSSL


def test_sql_is_in_the_database_package_only() -> None:
    found = [
        f"{module}:{line}"
        for module, tree in TREES.items()
        if part(module) != "database"
        for line, text in strings(tree)
        if SQL.match(text)
    ]
    assert found == []


def test_every_public_name_is_documented() -> None:
    silent = [
        name
        for module, tree in TREES.items()
        for name, node in public(module, tree)
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_module_is_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > LONGEST} == {}


def test_no_module_is_named_for_nothing_in_particular() -> None:
    vague = {"util", "utils", "helper", "helpers", "common", "base", "manager", "handler", "engine"}
    assert [module for module in MODULES if vague & set(module.split("."))] == []


def test_the_plugin_directory_is_no_package() -> None:
    assert [str(path) for path in (ROOT / "twisted").rglob("__init__.py")] == []
