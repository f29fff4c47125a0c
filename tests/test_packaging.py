"""What a user installs, and what `make` hands on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import vdm_blocks

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml takes Python 3.11")

ROOT = Path(__file__).resolve().parents[1]
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = TOML["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"vdm_blocks-{PROJECT['version']}.dist-info/"
    assert {name.split("/")[0] + "/" for name in names} == {"vdm_blocks/", info}
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "vdm_blocks").rglob("*.py")}
    assert sources | {"vdm_blocks/py.typed", info + "licenses/LICENSE"} <= set(names)


def test_the_wheel_imports_from_where_it_was_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import vdm_blocks; print(vdm_blocks.__file__)"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert ran.stdout.strip() == str(tmp_path / "vdm_blocks" / "__init__.py")


def test_the_source_distribution_holds_all_that_make_needs() -> None:
    listed = TOML["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    said = "".join((ROOT / name).read_text() for name in ("Makefile", "requirements/install.py"))
    words = {word for word in re.findall(r"\w[\w./-]*", said) if (ROOT / word).exists()}
    made = {line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
    needed = (
        {word.split("/")[0] for word in words} - {"pyproject.toml", *TOML["tool"]["ruff"]["exclude"]} - made
    )
    assert needed > {"constraints.txt", "requirements", "examples", "tests"}
    assert [name for name in needed if not any(fnmatch(name, x.removeprefix("/")) for x in listed)] == []


def test_the_version_stands_in_one_place() -> None:
    assert vdm_blocks.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_five_packages_are_all_that_the_core_needs() -> None:
    core = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert core == {"torch", "einops", "safetensors", "numpy", "typing-extensions"}


def test_the_development_environment_is_pinned_in_full() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    pinned = {pin.name.lower().replace("_", "-"): pin for pin in pins}
    extras = PROJECT["optional-dependencies"]
    wanted = [
        Requirement(line)
        for extra in ("video", "text", "t5", "plots", "diffusers", "hub", "docs", "dev")
        for line in PROJECT["dependencies"] + extras[extra]
        if not line.startswith("vdm-blocks[")
    ]
    for need in wanted:
        if need.marker is None or need.marker.evaluate():
            version = str(pinned[need.name].specifier).removeprefix("==")
            assert need.specifier.contains(version), f"{need} does not admit the pinned {version}"


def test_the_lower_bounds_are_the_versions_that_were_tried() -> None:
    lines = (ROOT / "requirements" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    tried = {Requirement(line).name: str(Requirement(line).specifier)[2:] for line in lines if line[0] != "#"}
    extras = PROJECT["optional-dependencies"]
    bounds = [Requirement(line) for line in PROJECT["dependencies"]]
    bounds += [
        Requirement(line)
        for extra in ("video", "text", "plots", "t5", "diffusers", "hub")
        for line in extras[extra]
    ]
    assert {str(bound) for bound in bounds} == {f"{name}>={version}" for name, version in tried.items()}


@pytest.mark.parametrize(
    "prompt",
    ['it\'s a "red" umbrella', "$5 and $(shell echo no) `echo no` ${HOME}", "--seed=9; # é 熊 \\ %s", "a\nb"],
)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_prompt_passes_through_make_byte_for_byte(tmp_path: Path, prompt: str, way: str) -> None:
    script = tmp_path / "show"
    script.write_text(f"#!{sys.executable}\nimport sys; print(sys.argv[2], end='')\n")
    script.chmod(0o755)
    command = ["make", "--no-print-directory", "-s", "demo", "RUN=@true", f"PY={script}"]
    env = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "PROMPT"}
    }
    if way == "argument":
        command.append(f"PROMPT={prompt}")
    else:
        env["PROMPT"] = prompt
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == f"--prompt={prompt}"
