"""The shape of the package: layers, purity of `core/`, public names, weight of an import, size of files.

Everything but the weight is read from the source with `ast`, so an import hidden in a function counts like any other.
Each rule is a function from a source tree to sentences that say what is wrong, and `PLANTED` breaks each rule once:
a check that cannot fail checks nothing.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "headlessconn"

# --- What is checked against --------------------------------------------------------------------------------------

PUBLIC_NAMES = ("Client", "Endpoint", "HeadlessError", "NoEndpoints", "Options", "Pick", "Service", "Target")
"""The front door, sorted. A name is added here and in `headlessconn.__all__` together, and then kept for good."""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "checks", "options"),
    ("core",),
    ("_runtime",),
    ("client", "pool", "sync"),
    ("__init__",),  # the front door re-exports what lies under it; what lies above may come in by it
    ("adapters", "sidecar", "testing"),
    ("cli",),
    ("__main__",),
)
"""Bottom first. A module imports from its own part or from lower layers."""

NEIGHBOURS = {"errors", "checks", "options", "client", "pool", "sync"}
"""Single files that may import a file of their own layer, since one must name the other; circles are found apart."""

PURE_STDLIB = frozenset(
    "__future__ abc array base64 bisect collections contextlib copy dataclasses enum fractions functools graphlib"
    " hashlib heapq hmac ipaddress itertools math operator random re reprlib statistics string struct textwrap types"
    " typing weakref zlib".split()
)
"""What `core/` may use: nothing in it reads a clock, opens a socket, waits, logs, locks or looks at the machine."""

PURE_BELOW = ("core", "errors", "checks", "options")
IMPURE_CALLS = frozenset({"open", "print", "input", "eval", "exec", "__import__", "breakpoint"})

HEAVY = frozenset({"aiohttp", "dns", "typer", "rich", "click"})
"""Not imported by `import headlessconn` nor by the pytest plugin, which every pytest run of a user's project loads."""

VAGUE = frozenset({"util", "utils", "helper", "helpers", "manager", "managers"})
LONGEST = 450
FOLDERS = ("headlessconn", "tests", "examples", "benchmarks", "tools")


# --- The source as a graph ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    module: str  # dotted: "headlessconn.core.engine", "asyncio"
    line: int
    only_for_types: bool  # under `if TYPE_CHECKING:`, so it never runs


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def part(self) -> str:
        """The name in LAYERS: `headlessconn.core.engine` is of `core`, `headlessconn` itself is `__init__`."""
        return part_of(self.name)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


class Source:
    """The package under `root`, parsed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def modules(self) -> dict[str, Module]:
        found = {}
        for path in sorted((self.root / PACKAGE).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
        return found

    def imports(self, module: Module) -> Iterator[Import]:
        """Every import of a module, wherever it stands; `from package import name` is the submodule if there is one."""
        type_only = {
            id(node)
            for branch in ast.walk(module.tree)
            if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
            for statement in branch.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                inner = [f"{base}.{alias.name}" for alias in node.names]
                names = [name if name in self.modules else base for name in inner]
            else:
                continue
            for name in names:
                yield Import(name, node.lineno, id(node) in type_only)

    def own_imports(self, module: Module) -> Iterator[Import]:
        return (found for found in self.imports(module) if found.module.split(".")[0] == PACKAGE)

    def _absolute(self, module: Module, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        is_package = module.path.stem == "__init__"
        package = module.name.split(".")
        package = package[: len(package) - node.level + is_package]
        return ".".join([*package, node.module] if node.module else package)


# --- The rules ----------------------------------------------------------------------------------------------------


def imports_only_go_down(source: Source) -> Iterator[str]:
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    for module in source.modules.values():
        if module.part not in height:
            yield f"{module.name}: {module.part!r} stands in no layer; give it a place in LAYERS"
            continue
        for found in source.own_imports(module):
            other = part_of(found.module)
            if other == module.part or height.get(other, 0) < height[module.part]:
                continue
            if height.get(other) == height[module.part] and {other, module.part} <= NEIGHBOURS:
                continue
            yield f"{module.name}:{found.line} imports {found.module}, which does not lie below it"


def adapters_stay_apart(source: Source) -> Iterator[str]:
    """One library, one file: an adapter imports another only if that one is private (`adapters/_dbapi.py`)."""
    for module in source.modules.values():
        if module.part != "adapters":
            continue
        for found in source.own_imports(module):
            names = found.module.split(".")
            if names[1:2] != ["adapters"] or len(names) < 3 or found.module == module.name or names[2][0] == "_":
                continue
            part = module.name.split(".")[2].startswith(f"_{names[2]}_")  # `_aiohttp_dials` is a part of `aiohttp`
            if not (part and found.only_for_types):
                yield f"{module.name}:{found.line} imports its sibling {found.module}"


def no_circles(source: Source) -> Iterator[str]:
    """Imports that run, lazy ones too. What is imported for types alone may point back: a class names its owner."""
    graph = {
        module.name: {found.module for found in source.own_imports(module) if not found.only_for_types} - {module.name}
        for module in source.modules.values()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "imports go round: " + " <- ".join(error.args[1])


def core_is_pure(source: Source) -> Iterator[str]:
    for module in source.modules.values():
        if module.part != "core":
            continue
        for found in source.imports(module):
            top = found.module.split(".")[0]
            allowed = part_of(found.module) in PURE_BELOW if top == PACKAGE else top in PURE_STDLIB
            if not allowed:
                yield f"{module.name}:{found.line} imports {found.module}; core decides, it does not act"
        for line, what in impurities(module.tree):
            yield f"{module.name}:{line} {what}"


def impurities(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await():
                yield node.lineno, "is async; core is called, it does not wait"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield node.lineno, f"calls {name}()"
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                yield node.lineno, f"uses random.{name}; the dice are handed in as a random.Random"
            case ast.ImportFrom(module="random", names=names) if {alias.name for alias in names} != {"Random"}:
                yield node.lineno, "imports more than Random from random; the dice are handed in"
            case ast.Import(names=names) if any(alias.name == "random" and alias.asname for alias in names):
                yield node.lineno, "renames random, which hides its use"


def names_say_something(source: Source) -> Iterator[str]:
    for module in source.modules.values():
        for name in module.name.split("."):
            if VAGUE & set(name.strip("_").split("_")):
                yield f"{module.name}: {name!r} says nothing of what is in it"


def files_are_small(source: Source) -> Iterator[str]:
    for folder in FOLDERS:
        for path in sorted((source.root / folder).rglob("*.py")):
            lines = len(path.read_text().splitlines())
            if lines > LONGEST:
                yield f"{path.relative_to(source.root)} has {lines} lines; over {LONGEST} it holds two ideas"


def exported(source: Source) -> list[str] | None:
    """`headlessconn.__all__` as written, or None where there is none."""
    front = source.modules.get(PACKAGE)
    for node in front.tree.body if front else ():
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return list(ast.literal_eval(value))
    return None


RULES: tuple[Callable[[Source], Iterator[str]], ...] = (
    imports_only_go_down,
    adapters_stay_apart,
    no_circles,
    core_is_pure,
    names_say_something,
    files_are_small,
)


# --- The tests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Callable[[Source], Iterator[str]]) -> None:
    source = Source(ROOT)
    assert len(source.modules) > 1, f"no package under {ROOT}"
    assert list(rule(source)) == []


def test_public_names() -> None:
    names = exported(Source(ROOT))
    assert names is not None
    assert tuple(sorted(names)) == tuple(sorted(PUBLIC_NAMES))


PLANTED = [
    pytest.param(imports_only_go_down, "core/engine.py", "from headlessconn import client", "core.engine:1", id="up"),
    pytest.param(imports_only_go_down, "core/x.py", "from .. import client", "core.x:1", id="relative"),
    pytest.param(imports_only_go_down, "errors.py", "import headlessconn.core.target", "errors:1", id="bottom"),
    pytest.param(imports_only_go_down, "client.py", "def f():\n import headlessconn", "client:2", id="lazy-front-door"),
    pytest.param(imports_only_go_down, "testing/x.py", "import headlessconn.sidecar", "testing.x:1", id="siblings"),
    pytest.param(imports_only_go_down, "extra.py", "", "no layer", id="no-layer"),
    pytest.param(adapters_stay_apart, "adapters/kafka.py", "from . import redis", "adapters.redis", id="adapters"),
    pytest.param(no_circles, "client.py", "def f():\n from headlessconn import pool", "go round", id="circle"),
    pytest.param(core_is_pure, "core/engine.py", "from time import monotonic", "imports time", id="clock"),
    pytest.param(core_is_pure, "core/engine.py", "def f():\n import asyncio", "imports asyncio", id="lazy-asyncio"),
    pytest.param(core_is_pure, "core/engine.py", "from dns import name", "imports dns", id="third-party"),
    pytest.param(core_is_pure, "core/engine.py", "import random\nrandom.random()", "random.random", id="dice"),
    pytest.param(core_is_pure, "core/engine.py", "from random import choice", "more than Random", id="dice-from"),
    pytest.param(core_is_pure, "core/engine.py", "import random as r", "renames random", id="dice-renamed"),
    pytest.param(core_is_pure, "core/engine.py", "async def f(): ...", "is async", id="async"),
    pytest.param(core_is_pure, "core/engine.py", "print(1)", "calls print", id="print"),
    pytest.param(names_say_something, "core/dns_utils.py", "", "dns_utils", id="vague"),
    pytest.param(files_are_small, "core/engine.py", "x = 1\n" * (LONGEST + 1), "451 lines", id="long"),
]


@pytest.mark.parametrize(("rule", "path", "text", "said"), PLANTED)
def test_a_planted_violation_is_found(
    rule: Callable[[Source], Iterator[str]], path: str, text: str, said: str, tmp_path: Path
) -> None:
    clean = {
        "__init__.py": "from headlessconn.client import Client",
        "errors.py": "",
        "core/target.py": "import random\nfrom headlessconn.errors import TargetError\nrandom.Random(1)",
        "client.py": "from headlessconn.core import target",
        "pool.py": "from headlessconn import client",
        "adapters/redis.py": "import headlessconn\nfrom headlessconn import pool",
        "sidecar/__init__.py": "",
    }
    for name, content in clean.items():
        write(tmp_path, name, content)
    assert list(rule(Source(tmp_path))) == []

    write(tmp_path, path, text)
    assert re.search(re.escape(said), "\n".join(rule(Source(tmp_path))))


def write(root: Path, name: str, content: str) -> None:
    path = root / PACKAGE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.testing.plugin"])
def test_an_import_is_light(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()


def test_heavy_modules_would_be_seen() -> None:
    assert "dns" in modules_after("import dns.name")


def modules_after(statement: str) -> set[str]:
    """What a fresh interpreter has loaded after one statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))
