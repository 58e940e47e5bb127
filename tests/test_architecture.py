"""The house holds: imports run one way, and one function alone sends calls out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pbx

ROOT = Path(pbx.__file__).parent

# From the bottom to the top: a module imports what stands before it, and of its own row what stands left of it.
ROWS = (
    "access clock numbers ports process yamltree yamlfile metrics prefix ari_api",
    "config contract expression hours prompt tenant emergency location",
    "spool database outbox store ari ari_http ami speech",
    "leg dial policy watch call",
    "step steps links dialplan manual",
    "emergency_call engine",
    "instance asterisk api simulator",
    "app __main__",
)
ORDER = {module: number for number, module in enumerate(" ".join(ROWS).split())}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def imported_at_run_time(path: Path) -> Iterator[str]:
    """Rooms of the package that a file imports; an import for types alone is not one."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in for_types and (node.module or "").split(".")[0] == "pbx":
            names = [alias.name for alias in node.names] if node.module == "pbx" else [str(node.module).split(".")[1]]
            yield from (name for name in names if name != "__version__")


def test_imports_run_one_way() -> None:
    """What a lower room needs of a higher one is given to it, not imported."""
    upward = [
        f"{path.relative_to(ROOT)} imports {other}"
        for module, path in modules() if module not in ("__init__", "migrations")
        for other in imported_at_run_time(path)
        if other != module and other != "migrations" and ORDER[other] >= ORDER[module]
    ]
    assert upward == []


def test_every_room_has_its_place() -> None:
    """A new module is put into the rows above, where its neighbours are."""
    assert {module for module, _ in modules()} - set(ORDER) <= {"__init__", "migrations"}


def test_one_function_makes_channels() -> None:
    """Every outbound leg passes the one door, Call.place; nothing else may create a channel."""
    making = {"create", "originate", "originate_with_id", "external_media"}
    doors = []
    for _, path in modules():
        if path.name == "ari_api.py" or "simulator" in path.parts:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute) or node.attr not in making:
                    continue
                if ast.unparse(node.value).endswith("channels"):
                    doors.append(f"{path.name}:{function.name}")
    assert doors == ["call.py:place"]


def test_only_the_emergency_path_passes_the_gate_unasked() -> None:
    """What marks a call as an emergency is set in one place, which nothing of a plan reaches."""
    marking = [
        f"{path.name}:{function.name}"
        for _, path in modules()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef | ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "emergency" and isinstance(node.ctx, ast.Store)
    ]
    assert marking == ["call.py:__init__", "engine.py:_emergency"]


def test_a_policy_imports_the_gate_alone() -> None:
    """What a policy needs of the engine is in one module, so that outside packages can bring policies as well."""
    for path in (ROOT.parent / "plugins").glob("*.py"):
        assert set(imported_at_run_time(path)) <= {"policy"}, path.name


def test_a_step_knows_no_other_step() -> None:
    """A step is one file on its own; only the list of steps knows them all."""
    for path in (ROOT / "steps").glob("*.py"):
        if path.name != "__init__.py":
            assert "pbx.steps" not in path.read_text(), path.name


def test_the_engine_alone_speaks_of_calls_to_asterisk() -> None:
    """`ari` knows nothing of calls, `call` nothing of YAML, `api` nothing of `ari`."""
    rooms: dict[str, set[str]] = {}
    for module, path in modules():
        rooms.setdefault(module, set()).update(imported_at_run_time(path))
    assert not rooms["ari"] & {"call", "leg", "store"}
    assert not (rooms["call"] | rooms["leg"] | rooms["dial"]) & {"yamlfile", "tenant", "step", "dialplan"}
    assert not rooms["api"] & {"ari", "call", "engine"}
