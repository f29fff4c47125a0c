"""Run every notebook in examples/notebooks and write what it shows to docs/notebooks: text, numbers, pictures.

A notebook is run again only when it, or the package, has changed.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "examples" / "notebooks"
TARGET = ROOT / "docs" / "notebooks"


def fingerprint(source: Path) -> str:
    """Changes with the notebook, this script and the package."""
    digest = hashlib.sha256()
    for file in (source, Path(__file__), *sorted((ROOT / "vdm_blocks").rglob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def shown(output: Any, stem: str, count: int) -> tuple[str, int]:
    """An output as Markdown, and how many pictures there are by now."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```", count
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{count}.png"
        (TARGET / name).write_bytes(base64.b64decode(data["image/png"]))
        return f"![]({name})", count + 1
    return f"```text\n{data.get('text/plain', '').rstrip()}\n```", count


def render(source: Path) -> None:
    """Run `source` and write its page."""
    notebook = jupytext.read(source)
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    parts, pictures = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            parts.append(f"```python\n{cell.source}\n```")
            for output in cell.outputs:
                text, pictures = shown(output, source.stem, pictures)
                parts.append(text)
    parts.append(
        f"*This page is what `examples/notebooks/{source.name}` printed when the documentation was built.*"
    )
    (TARGET / f"{source.stem}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def main() -> None:
    """Render what changed; a notebook that fails ends the build with its error."""
    TARGET.mkdir(exist_ok=True)
    sources = sorted(SOURCES.glob("*.py"))
    for page in TARGET.glob("*.md"):
        if page.stem not in {source.stem for source in sources}:
            page.unlink()
    for source in sources:
        stamp, wanted = TARGET / f".{source.stem}.sha256", fingerprint(source)
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        began = time.perf_counter()
        stamp.unlink(missing_ok=True)
        render(source)
        stamp.write_text(wanted)
        print(f"  notebook {source.stem}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
