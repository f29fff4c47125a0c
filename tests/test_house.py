"""The rules of the house, read off the source: floors, sizes, and what no file may do."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vdm_blocks"
FLOORS = {
    "diffusion": 0, "nn": 0, "video": 0,
    "types": 1, "data": 1, "metrics": 1,
    "models": 2, "conditioning": 2,
    "denoisers": 3, "checkpoint": 3,
    "training": 4, "sampling": 4,
    "distillation": 5, "cascade": 5, "interop": 5,
}  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMED = [file for file in FILES if file != PACKAGE / "__init__.py"]
SOURCES = sorted(
    file
    for folder in ("vdm_blocks", "tests", "examples", "benchmarks", "docs", "requirements")
    for file in (ROOT / folder).rglob("*.py")
    if ".ipynb_checkpoints" not in file.parts
)


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT)).replace("\\", "/")


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[1]


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@cache
def imports(file: Path) -> frozenset[str]:
    """The package's modules that `file` imports, at its top or later; relative imports are resolved."""
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= (names & MODULES) or {base}
    return frozenset(name for name in found if name == "vdm_blocks" or name.startswith("vdm_blocks."))


MODULES = {module_of(file) for file in FILES}


def test_every_file_lives_in_a_known_room() -> None:
    assert {room_of(module_of(file)) for file in ROOMED} <= FLOORS.keys()


def test_every_folder_is_a_package() -> None:
    folders = {file.parent for file in FILES}
    assert [name_of(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("file", ROOMED, ids=name_of)
def test_imports_go_down_or_stay_in_the_room(file: Path) -> None:
    room = room_of(module_of(file))
    for name in imports(file) - {"vdm_blocks"}:
        other = room_of(name)
        assert other == room or FLOORS[other] < FLOORS[room], (
            f"{name_of(file)} on floor {FLOORS[room]} imports {name} on floor {FLOORS[other]}"
        )


@pytest.mark.parametrize("file", ROOMED, ids=name_of)
def test_no_room_imports_the_front_door(file: Path) -> None:
    public = {f"vdm_blocks.{name}" for name in FLOORS}
    through = {name for name in imports(file) if name.count(".") == 1 and name not in public}
    assert not through, (
        f"{name_of(file)} takes {through} from vdm_blocks itself; name the module that holds it"
    )


def test_files_import_one_another_without_a_circle() -> None:
    graph = {module_of(file): imports(file) - {module_of(file)} for file in ROOMED}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_file_is_over_400_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


UNSAFE_MODULES = {"pickle", "dill", "shelve", "marshal", "joblib", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_nothing_is_unpickled_or_evaluated(file: Path) -> None:
    for node in nodes(file):
        where = f"{name_of(file)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & UNSAFE_MODULES, where
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE_MODULES, where
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in UNSAFE_CALLS - ALLOWED.get(name_of(file), set()), where
            assert all(keyword.arg != "allow_pickle" for keyword in node.keywords), where


ALLOWED = {"tests/test_docs.py": {"exec", "compile"}}  # it runs the documentation's own code blocks

SWITCHES = re.compile(
    r"torch\.(set_default_\w+|set_num_threads|set_grad_enabled|manual_seed|seed|use_deterministic_algorithms"
    r"|set_float32_matmul_precision|backends\..*)|(np|numpy)\.random\.seed|random\.seed|os\.environ.*"
)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_package_changes_nothing_process_wide(file: Path) -> None:
    for node in nodes(file):
        touched: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            touched = node.targets
        elif isinstance(node, ast.Call) and not ast.unparse(node.func).startswith(
            ("torch.backends", "os.environ")
        ):
            touched = [node.func]
        for target in touched:
            assert not SWITCHES.fullmatch(ast.unparse(target)), f"{name_of(file)}:{target.lineno}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_probed_or_passed_on_blindly(file: Path) -> None:
    for node in nodes(file):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "hasattr", f"{name_of(file)}:{node.lineno} probes with hasattr"
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
            passed_on = {
                keyword.value.id
                for call in ast.walk(node)
                if isinstance(call, ast.Call)
                for keyword in call.keywords
                if keyword.arg is None and isinstance(keyword.value, ast.Name)
            }
            where = f"{name_of(file)}:{node.lineno}"
            assert node.args.kwarg.arg not in passed_on, f"{where} {node.name} passes **kwargs on blindly"


@pytest.mark.parametrize("file", [f for f in SOURCES if f.name.startswith("test_")], ids=name_of)
def test_no_test_returns_before_it_asserts(file: Path) -> None:
    for test in nodes(file):
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            inner = {
                n
                for d in ast.walk(test)
                if isinstance(d, ast.FunctionDef) and d is not test
                for n in ast.walk(d)
            }
            bare = [n for n in ast.walk(test) if isinstance(n, ast.Return) and n not in inner]
            assert not bare, (
                f"{name_of(file)}:{test.lineno} {test.name} returns; a case that cannot run is skipped"
            )


def test_importing_the_package_brings_no_optional_package() -> None:
    optional = [
        "xformers",
        "transformers",
        "diffusers",
        "av",
        "PIL",
        "matplotlib",
        "tokenizers",
        "huggingface_hub",
    ]
    code = f"import sys, vdm_blocks; print([m for m in {optional} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"
