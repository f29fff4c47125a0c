"""Setting up .venv: once, again when the requirements change, and from nothing after it was stopped half-way."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Machine:
    """A checkout in a folder of its own, where venv and pip only say that they were called."""

    def __init__(self, root: Path, install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.venv = root / ".venv"
        self.install = install
        self.calls: list[str] = []
        self.failing = ""
        monkeypatch.setattr(install, "ROOT", root)
        monkeypatch.setattr(install, "VENV", self.venv)
        monkeypatch.setattr(install, "works", (self.venv / "bin" / "python").exists)
        monkeypatch.setattr(install.venv, "create", self.create)
        monkeypatch.setattr(install.subprocess, "run", self.run)

    def create(self, folder: Path, *, with_pip: bool) -> None:
        assert with_pip
        (folder / "bin").mkdir()
        (folder / "bin" / "python").touch()
        self.calls.append("venv")

    def run(self, command: list[str], **_: Any) -> None:
        if self.failing and self.failing in command:
            raise subprocess.CalledProcessError(1, command)
        self.calls.append(command[-1])

    def set_up(self, purpose: str = "run") -> list[str]:
        self.calls.clear()
        self.install.install(purpose)
        return list(self.calls)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("constraints.txt", "pyproject.toml", "requirements/no-deps.txt", "requirements/install.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    spec = importlib.util.spec_from_file_location("install", ROOT / "requirements" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Machine(tmp_path, module, monkeypatch)


STEPS = ["editables", ".[video,text,plots]", "requirements/no-deps.txt"]


def test_it_happens_once(machine: Machine) -> None:
    assert machine.set_up() == ["venv", *STEPS]
    assert machine.set_up() == []


def test_tests_need_more_than_the_demo(machine: Machine) -> None:
    machine.set_up()
    assert machine.set_up("dev") == ["editables", ".[dev]", "requirements/no-deps.txt"]
    assert machine.set_up("run") == []


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "requirements/no-deps.txt"])
def test_changed_requirements_are_installed_over_the_old(machine: Machine, name: str) -> None:
    machine.set_up()
    with (machine.venv.parent / name).open("a") as file:
        file.write("# changed\n")
    assert machine.set_up() == STEPS


def test_a_set_up_that_broke_off_starts_from_nothing(machine: Machine) -> None:
    machine.failing = "requirements/no-deps.txt"
    with pytest.raises(subprocess.CalledProcessError):
        machine.set_up()
    (machine.venv / "half-written").touch()
    machine.failing = ""
    assert machine.set_up() == ["venv", *STEPS]
    assert not (machine.venv / "half-written").exists()


def test_a_venv_without_its_interpreter_starts_from_nothing(machine: Machine) -> None:
    machine.set_up()
    (machine.venv / "bin" / "python").unlink()
    (machine.venv / "run.stamp").write_text("old")
    assert machine.set_up() == ["venv", *STEPS]
