"""Every Python block in README.md and docs/ runs, page by page, in the order in which a reader meets them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code = compile("\n" * line + block.group(1), str(page), "exec", dont_inherit=True)
        exec(code, namespace)  # safe: the code is our own documentation, from this checkout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_say_what_they_are(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(fence.strip() for fence in fences[::2]), (
        "a block without a language is never run: python, bash or text"
    )


def test_there_are_blocks_to_run() -> None:
    with_blocks = {page.name for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))}
    assert {"README.md", "getting-started.md", "extending.md", "choosing.md"} <= with_blocks


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    words = (
        re.sub(r"[^\w\s-]", "", title.lower()).strip()
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    )
    return {re.sub(r"[-\s]+", "-", word) for word in words}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith("https:"):
            continue
        target = page.parent / path if path else page
        if target.parent.name == "notebooks":  # rendered from the source of the same name
            target = ROOT / "examples" / "notebooks" / f"{target.stem}.py"
        assert target.exists(), f"{page.name} links to {link}, and nothing is there"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, and {path} has no such heading"
