"""MkDocs hook: adds what is not written by hand, the rendered notebooks and one page of reference per room."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vdm_blocks"
NOTEBOOKS = ROOT / "docs" / "notebooks"
ROOMS = (
    "types", "diffusion", "nn", "models", "conditioning", "denoisers", "sampling", "training", "distillation",
    "cascade", "data", "video", "metrics", "checkpoint", "interop",
)  # fmt: skip


def on_config(config: Any) -> Any:
    """List the generated pages in the navigation."""
    notebooks = sorted(NOTEBOOKS.glob("*.md"))
    if notebooks:
        config.nav.append({"Notebooks": [f"notebooks/{page.name}" for page in notebooks]})
    config.nav.append({"Reference": [{room: f"api/{room}.md"} for room in ROOMS]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the reference pages."""
    for room in ROOMS:
        files.append(File.generated(config, f"api/{room}.md", content=reference(room)))
    return files


def reference(room: str) -> str:
    """A page that shows every module of a room, each under its own name."""
    folder = PACKAGE / room
    if folder.is_dir():
        about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
        modules = [f"vdm_blocks.{room}.{file.stem}" for file in files]
    else:
        about, modules = "", [f"vdm_blocks.{room}"]
    return "\n\n".join([f"# {room}", about, *(f"::: {module}" for module in modules)]) + "\n"
