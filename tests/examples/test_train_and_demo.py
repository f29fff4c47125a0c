"""The cascade's scripts as a user runs them: a killed training goes on to the bit, and so does a stopped demo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from distilled_stages import RECIPES, short_hash, told_scales
from safetensors.torch import load_file
from stages import BASE

from vdm_blocks.checkpoint import save_network
from vdm_blocks.distillation import save_student
from vdm_blocks.models import build_network
from vdm_blocks.video.read import read_video

ROOT = Path(__file__).resolve().parents[2]
CASCADE = ROOT / "examples" / "cascade"
ENV = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CASCADE / script), *args]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300, check=False)


def test_a_killed_training_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    def args(name: str) -> list[str]:
        return ["2-tsr", "--smoke", "--threads", "1", "--workers", "0", "--out", str(tmp_path / name),
                "--weights", str(tmp_path / f"{name}-weights"), "--save-every", "0"]  # fmt: skip

    whole = run("train.py", *args("whole"))
    assert whole.returncode == 0, whole.stderr
    log = tmp_path / "broken" / "2-tsr" / "log.csv"
    process = subprocess.Popen([sys.executable, str(CASCADE / "train.py"), *args("broken")], env=ENV)
    while not log.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run("train.py", *args("broken")).returncode == 0
    one = load_file(tmp_path / "whole" / "2-tsr" / "state.safetensors")
    two = load_file(tmp_path / "broken" / "2-tsr" / "state.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    weights = [tmp_path / f"{name}-weights" / "2-tsr.safetensors" for name in ("whole", "broken")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    other = run("train.py", *args("broken"), "--seed", "1")
    assert other.returncode != 0
    assert "belongs to another run" in other.stderr


def test_a_stage_that_does_not_exist_is_refused() -> None:
    result = run("train.py", "8-ssr")
    assert result.returncode != 0
    assert "there is no stage '8-ssr'; choose one of 1-base" in result.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two stages as networks of the planned shape that have learned nothing."""
    from stages import PLANS

    folder = tmp_path_factory.mktemp("weights")
    for plan in PLANS[:2]:
        save_network(folder / f"{plan.name}.safetensors", build_network(plan.unet))
    return folder


def run_demo(weights: Path, out: Path, *args: str, prompt: str = "a cat") -> subprocess.CompletedProcess[str]:
    return run(
        "demo.py", "--weights", str(weights), "--out", str(out), "--prompt", prompt, "--steps", "2", *args
    )


def test_the_demo_writes_its_films_and_goes_on_to_the_same_bytes(tmp_path: Path, weights: Path) -> None:
    assert run_demo(weights, tmp_path / "whole", "--stages", "2", "--quiet").stderr == ""
    first = run_demo(weights, tmp_path / "parts", "--stages", "1")
    assert first.returncode == 0, first.stderr
    second = run_demo(weights, tmp_path / "parts", "--stages", "2")
    assert "1-base: there already" in second.stderr
    for stage in ("1-base", "2-tsr"):
        kept = [
            load_file(tmp_path / run_ / ".stages" / f"{stage}.safetensors") for run_ in ("whole", "parts")
        ]
        assert torch.equal(kept[0]["frames"], kept[1]["frames"])
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["stages"]["2-tsr"]["grid"] == [32, 24, 40]
    assert record["run"]["seed"] == 0
    assert set(record["run"]["weights"]) == {"1-base", "2-tsr"}
    film = read_video(tmp_path / "whole" / "2-tsr.mp4")
    assert film.video.shape == (3, 32, 192, 320)
    assert (tmp_path / "whole" / "sheet.png").stat().st_size > 1000
    leftovers = [path.name for path in (tmp_path / "whole").rglob("*part*")]
    assert leftovers == []
    other = run_demo(weights, tmp_path / "whole", "--stages", "1", prompt="a dog")
    assert other.returncode == 2
    assert "holds another run ('a cat')" in other.stderr


def test_the_demo_takes_a_student_of_its_teacher_and_no_other(tmp_path: Path, weights: Path) -> None:
    folder, students = tmp_path / "weights", tmp_path / "weights" / "students"
    students.mkdir(parents=True)
    (folder / "1-base.safetensors").write_bytes((weights / "1-base.safetensors").read_bytes())

    def steps(out: str, *args: str) -> tuple[int, str]:
        asked = ["--weights", str(folder), "--out", str(tmp_path / out), "--prompt", "a cat", "--stages", "1"]
        result = run("demo.py", *asked, *args)
        assert result.returncode == 0, result.stderr
        made = json.loads((tmp_path / out / "run.json").read_text())
        return made["stages"]["1-base"]["steps"], result.stderr

    student = told_scales(BASE, build_network(BASE.unet), "progressive")
    save_student(students / "1-base.safetensors", student, notes={"teacher": "another's"})
    _, said = steps("stale", "--steps", "3")
    assert "its student is that of other weights; its teacher takes 3 steps instead" in said
    own = {"teacher": short_hash(folder / "1-base.safetensors")}
    save_student(students / "1-base.safetensors", student, notes=own)
    taken, said = steps("student")
    assert taken == RECIPES["1-base"].shipped == 8
    assert "teacher" not in said
    assert steps("swinging", "--steps", "4", "--guidance", "oscillate")[0] == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--prompt", "  "], "is empty"),
        (["--prompt", "word " * 200], "tokens"),
        (["--stages", "8"], "give a number from 1"),
        (["--stages", "0"], "give a number from 1"),
        (["--stages", "3"], "3-ssr.safetensors is missing; train it"),
        (["--steps", "many"], "give 'full'"),
        (["--out", "/proc/nowhere"], "cannot write to"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(
    tmp_path: Path,
    weights: Path,
    args: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import demo as script

    given = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--stages", "1", *args]
    monkeypatch.setattr(sys, "argv", ["demo.py", *given])
    assert script.main() == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mp4"))


def test_truncated_and_foreign_weights_are_refused(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    whole = (weights / "1-base.safetensors").read_bytes()
    (folder / "1-base.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in run_demo(folder, tmp_path / "a", "--stages", "1").stderr
    (folder / "1-base.safetensors").write_bytes((weights / "2-tsr.safetensors").read_bytes())
    assert "holds another network" in run_demo(folder, tmp_path / "b", "--stages", "1").stderr
    assert not list(tmp_path.glob("*/*.mp4"))
