"""The benchmarks of networks and blocks run and say what they measured; their timings are not a test's business."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import blocks, bounded, floor, networks, peers, recompute, timing


def foreign() -> peers.Peer:
    """A convolution in a library's place."""
    return peers.Peer(
        name="diffusers",
        package="torch",
        build=lambda _: nn.Conv3d(3, 3, 1),
        call=lambda net, z_t: as_tensor(net(z_t)),
    )


def as_tensor(x: Tensor) -> Tensor:
    return x


@pytest.fixture(scope="module")
def cells() -> list[networks.Cell]:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers.Peer, "label", lambda self: self.name)
        return list(networks.measure("tiny", (2, 4, 8), [foreign()], 2))


def test_every_network_is_measured_both_ways(cells: list[networks.Cell]) -> None:
    assert [cell.backward for cell in cells] == [False, True]
    for cell in cells:
        ours, also, theirs = cell.networks
        assert cell.peers == [theirs]
        assert {len(one.cpu) for one in cell.networks} == {2 if cell.backward else 4}
        assert (also.operations > ours.operations) is (not cell.backward)
        assert theirs.parameters == 12
        assert theirs.operations == 2 * 9 * 64 * (
            2 if cell.backward else 1
        )  # no gradient of the video is asked for
        assert cell.ratio(theirs) / cell.per_operation(theirs) == pytest.approx(
            theirs.operations / ours.operations
        )
        assert (ours.peak is None) is (theirs.peak is None) is (not cell.backward)


def test_the_memory_of_training_is_the_tensors_held(cells: list[networks.Cell]) -> None:
    """The prediction, its square's parts and the gradients of twelve weights, not the whole profile's sum."""
    peak = cells[1].networks[-1].peak
    assert peak is not None
    video = 4 * 3 * 64
    assert 2 * video < peak < 5 * video + 1024


def test_the_section_holds_every_network_and_aim(cells: list[networks.Cell]) -> None:
    text = networks.section(cells, "the blocks")
    assert text.count("| tiny, 2x4x8, ") == 6
    assert "| diffusers | training memory | <= 0.25 |" in text
    assert "| the ceiling | 35M, forward | >= 60% |  | not measured |" in text
    assert text.count(" at 16x24x40 ") == 4
    assert "35M at 16x64x64 with backward." in text
    assert text.endswith("the blocks")


def test_a_measurement_that_is_kept_is_not_repeated(
    cells: list[networks.Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in cells:
        cell.save(tmp_path / f"tiny-2x4x8-{'training' if cell.backward else 'forward'}.json")
    monkeypatch.setattr(networks, "interleave", None)
    again = list(networks.measure("tiny", (2, 4, 8), [], 2, tmp_path))
    assert [list(cell.rows()) for cell in again] == [list(cell.rows()) for cell in cells]


def test_a_section_is_written_anew_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    timing.write_section(page, "one", "first")
    timing.write_section(page, "two", "second")
    timing.write_section(page, "one", "third")
    text = page.read_text()
    assert text.startswith("# Benchmarks\n")
    assert "first" not in text
    assert text.index("third") < text.index("second")


def test_the_blocks_agree_with_their_naive_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = str(torch.get_num_threads())
    page = tmp_path / "page.md"
    command = ["blocks.py", "--quick", "--rounds", "1", "--threads", threads, "--write", str(page)]
    monkeypatch.setattr(sys, "argv", command)
    blocks.main()
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 11
    assert capsys.readouterr().out.strip() in page.read_text()


def test_a_grid_needs_three_numbers() -> None:
    assert networks.grid_of("16x24x40") == (16, 24, 40)
    with pytest.raises(ValueError, match="such as 16x24x40; got '24x40'"):
        networks.grid_of("24x40")


@pytest.mark.parametrize("norm", bounded.NORMS)
def test_a_row_of_bounded_memory_compares_tiles_with_the_whole(norm: str) -> None:
    row = bounded.row(norm, 5, 64, 96)
    assert row["frames"] == 5
    assert float(row["apart"]) < 1e-4
    text = bounded.section([row], [5], 64, 96)
    assert f"| a {norm} | {row['tile']} | 5 |" in text


def test_operations_count_fused_attention_both_ways() -> None:
    q = torch.randn(1, 2, 64, 8, requires_grad=True)
    product = 2 * 2 * 64 * 64 * 8

    def run() -> None:
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()

    assert timing.operations(run) == (2 + 5) * product


def test_the_parts_of_a_forward_are_all_there() -> None:
    rows = floor.measure("tiny", (4, 64, 64), 1)
    work = {row[1]: float(row[3]) for row in rows}
    assert set(work) >= {"3x3 and 2x2 convolutions", "1x1 convolutions", "norms", "SiLU", "**the network**"}
    z_t, network = torch.randn(1, 3, 4, 64, 64), networks.unet("tiny")
    whole = timing.operations(torch.no_grad()(lambda: networks.call(network, z_t))) / 1e9
    assert {rows[-1][3], rows[-2][3], rows[-3][3]} == {f"{whole:.1f}"} != {"0.0"}
    assert sum(list(work.values())[:-3]) == pytest.approx(whole, abs=0.3)
    assert floor.section(rows, 1).count("| tiny, 4x64x64 |") == len(rows)


def test_what_is_recomputed_is_not_held() -> None:
    torch.manual_seed(0)
    rows = recompute.measure("tiny", (4, 16, 16), 1)
    assert [row[1] for row in rows] == list(recompute.WAYS)
    assert all(row[1] in recompute.section(rows, 1) for row in rows)
    network, video = networks.unet("tiny"), torch.randn(1, 3, 4, 16, 16)

    def train() -> None:
        networks.call(network, video).square().mean().backward()

    train()
    peaks = []
    for way in recompute.WAYS.values():
        way(network)
        peaks.append(timing.peak_bytes(train))
    assert peaks[2] < peaks[1] < 0.8 * peaks[0]
