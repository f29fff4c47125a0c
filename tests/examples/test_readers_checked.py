"""The readers' own examination: damage is what it says, and the page has a row for every reading."""

from __future__ import annotations

import pytest
import torch
from judge import truth
from readers_checked import (
    EXPECTED,
    FAULTS,
    HERE,
    NAMES,
    PAGE,
    Readers,
    distinct,
    faulty,
    in_order,
    measure,
    table,
)

JUDGE, ENCODER = HERE / "judge" / "judge.safetensors", HERE / "videotext" / "videotext.safetensors"


@pytest.fixture(scope="module")
def readers() -> Readers:
    torch.set_num_threads(1)
    return Readers.load(JUDGE, ENCODER)


def test_a_fault_is_in_what_it_names_and_in_the_picture(readers: Readers) -> None:
    scenes, concepts = distinct(12, readers.pack), readers.pack.concepts
    for fault, name in zip(FAULTS[:2], ("object", "motion"), strict=True):
        for i, scene in enumerate(scenes):
            wrong = faulty(scenes, i, fault, concepts)
            found = truth(wrong)
            assert {key for key, value in truth(scene).items() if found[key] != value} == {name}
            assert wrong.subject != scene.subject
    assert faulty(scenes, 11, "other scene", concepts) == scenes[0]


def test_the_shipped_readers_tell_a_scene_from_another_and_the_page_says_so(readers: Readers) -> None:
    scores = measure(readers, 4, quiet=True)
    assert list(scores) == [
        "VT score",
        "R-precision",
        "KVD-VT",
        "object read",
        "colour read",
        "motion read",
        "place read",
    ]
    assert set(scores) == set(EXPECTED)
    assert in_order(scores["VT score"], "VT score", "other scene")
    assert in_order(scores["R-precision"], "R-precision", "other scene")
    lines = table(scores).splitlines()
    assert len(lines) == 2 + len(scores)
    assert all(line.count("|") == len(NAMES) + 3 for line in lines)
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in scores if page.count(f"\n| {name} | ") < 1] == [], "run readers_checked.py"
