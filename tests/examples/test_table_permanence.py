"""What the table says of things behind a cover: the truth is kept, and each planted fault is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from table_permanence import BASELINES, Cover, baseline, cover, read, read_base, summary


@pytest.fixture(scope="module")
def known() -> Cover:
    return cover(0)


def test_the_thing_is_hidden_between_two_whole_views(known: Cover) -> None:
    assert known.caption == "a red cylinder is moving left behind a blue box"
    hidden = known.visible[0] < 0.05
    assert 4 < int(hidden.sum()) < 16
    assert known.first.shape == (1, 3, 16, 24, 40)
    torch.testing.assert_close(known.first[0, :, 3, 5, 7], known.video[0, :, 6, 10:12, 14:16].mean((1, 2)))


def test_truth_is_kept_and_faults_are_not(known: Cover) -> None:
    found = {name: read(baseline(name, known), known) for name in BASELINES}
    assert {name: row["kept"] for name, row in found.items()} == {
        "truth": 1.0, "swapped": 0.0, "blended": 1.0, "frozen": 0.0
    }  # fmt: skip
    assert found["swapped"]["returned"] == 0.0
    assert found["swapped"]["color"] is None
    assert found["frozen"]["track"] > 0.3 > 0.02 > found["truth"]["track"]


def test_a_base_is_read_without_a_truth(known: Cover) -> None:
    assert read_base(known.first, "red") == {"found": 11 / 16, "passes": 1.0, "kept": 1.0}
    held = known.first[:, :, :1].expand_as(known.first)
    assert read_base(held, "red") == {"found": 1.0, "passes": 0.0, "kept": 0.0}
    assert read_base(torch.zeros_like(known.first), "red")["found"] == 0.0
    grown = known.first.clone()
    grown[:, :, 9:] = baseline("swapped", known)[:, :, 19::2, ::2, ::2][:, :, :7]
    assert read_base(grown, "red")["kept"] == 0.0


def test_a_thing_that_enters_or_leaves_the_picture_is_read_between(known: Cover) -> None:
    """Hidden before it is first seen, and after it is last seen, is no cover."""
    late = known.first.clone()
    late[:, :, :2], late[:, :, -1:] = 0.5, 0.5
    assert read_base(late, "red") == {"found": 8 / 16, "passes": 1.0, "kept": 1.0}
    late[:, :, :5] = 0.5
    assert read_base(late, "red")["passes"] == 0.0


def test_means_and_errors_are_over_scenes_and_leave_out_what_was_not_seen() -> None:
    readings: dict[tuple[int, int], dict[str, Any]] = {
        (0, 0): {"kept": 1.0, "size": 0.1},
        (0, 1): {"kept": 0.0, "size": None},
        (1, 1): {"kept": 1.0, "size": 0.3},
    }
    found = summary(readings)
    assert found["kept"] == {"mean": pytest.approx(0.75), "error": pytest.approx(0.25), "n": 3}
    assert found["size"]["mean"] == pytest.approx(0.2)
    assert summary({(0, 0): {"kept": 0.0, "size": None}}) == {"kept": {"mean": 0.0, "error": None, "n": 1}}
    assert summary({}) == {}
