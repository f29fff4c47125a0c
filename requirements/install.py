"""Make .venv hold what the requirements ask for: `python3 requirements/install.py run`, or `dev`.

`run` is for the demo, the training and the benchmarks; `dev` adds what tests and documentation need. Only the
standard library is used, for nothing else is there yet. When nothing changed it ends at once. A set-up that
was stopped half-way starts from nothing the next time: a half-written package can look installed to pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
EXTRAS = {"run": "video,text,plots", "dev": "dev"}
STEPS = {
    "torch": ["--constraint", "constraints.txt", "torch", "hatchling", "editables"],
    "vdm_blocks and what it needs": ["--constraint", "constraints.txt", "--no-build-isolation", "--editable"],
    "text encoder and camera footage": ["--no-deps", "--requirement", "requirements/no-deps.txt"],
}


def fingerprint(purpose: str) -> str:
    """Changes with the requirements, the interpreter and the place of the checkout."""
    digest = hashlib.sha256(f"{purpose} {sys.version} {ROOT}".encode())
    for name in ("constraints.txt", "pyproject.toml", "requirements/no-deps.txt", "requirements/install.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works() -> bool:
    """Whether .venv has an interpreter of this version with pip in it."""
    ask = "import pip, sys; print(sys.version)"
    try:
        found = subprocess.run([VENV / "bin/python", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return found.stdout.strip() == sys.version.strip()


def install(purpose: str) -> None:
    """Bring .venv up to date for `purpose`."""
    stamp, unfinished = VENV / f"{purpose}.stamp", VENV / "unfinished"
    wanted = fingerprint(purpose)
    if not unfinished.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if VENV.exists() and (unfinished.exists() or not works()):
        shutil.rmtree(VENV)
    print(f"setting up .venv for {purpose}: this happens once", flush=True)
    if not VENV.exists():
        VENV.mkdir()
        unfinished.touch()
        venv.create(VENV, with_pip=True)
    unfinished.touch()
    pip = [str(VENV / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    for number, (what, arguments) in enumerate(STEPS.items(), 1):
        print(f"  {number}/{len(STEPS)} {what}", flush=True)
        target = [f".[{EXTRAS[purpose]}]"] if arguments[-1] == "--editable" else []
        subprocess.run([*pip, *arguments, *target], cwd=ROOT, check=True)
    stamp.write_text(wanted)
    unfinished.unlink()


def main() -> None:
    """Read the purpose from the command line; one set-up at a time."""
    if len(sys.argv) != 2 or sys.argv[1] not in EXTRAS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(EXTRAS)}")
    if sys.version_info < (3, 10):  # noqa: UP036 - the one file that an older Python may meet
        sys.exit(f"vdm_blocks needs Python 3.10 or newer, this is {sys.version}; try make PYTHON=python3.11")
    with (ROOT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            install(sys.argv[1])
        except subprocess.CalledProcessError as error:
            sys.exit(f"pip ended with exit code {error.returncode}; see its message above, then try again")
        except KeyboardInterrupt:
            sys.exit(os.linesep + "stopped; the next call starts the set-up again")


if __name__ == "__main__":
    main()
