from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from contract import LOCAL, SPECS, awaken, inputs
from safetensors import SafetensorError
from safetensors.torch import save_file

from vdm_blocks.checkpoint import (
    file_hash,
    load_network,
    load_unet,
    read_info,
    save_network,
    save_tensors,
    save_unet,
)
from vdm_blocks.models import (
    FactorizedSpec,
    JointSpec,
    TransformerSpec,
    UNetSpec,
    VideoTransformer,
    VideoUNet,
)
from vdm_blocks.models.plain import to_plain


def network(spec: UNetSpec = LOCAL) -> VideoUNet:
    net = awaken(VideoUNet(spec))
    assert isinstance(net, VideoUNet)
    return net


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_is_saved_loads_to_the_bit(spec: UNetSpec, tmp_path: Path) -> None:
    net, x = network(spec), inputs(spec, dtype=torch.float32)
    save_unet(tmp_path / "a.safetensors", net, notes={"stage": "1"}, dtype=torch.float32)
    again = load_unet(tmp_path / "a.safetensors")
    assert torch.equal(again(x.z_t, x.logsnr, x.cond), net(x.z_t, x.logsnr, x.cond))
    assert not again.training
    info = read_info(tmp_path / "a.safetensors")
    assert info.spec == spec
    assert dict(info.notes) == {"stage": "1"}
    assert {p.requires_grad for p in again.parameters()} == {True}
    layouts = [[p.stride() for p in network.parameters()] for network in (net, again)]
    assert layouts[0] == layouts[1]


@pytest.mark.parametrize("mixing", [FactorizedSpec(), JointSpec()], ids=["factorized", "joint"])
def test_a_transformer_is_saved_with_its_plan(mixing: FactorizedSpec | JointSpec, tmp_path: Path) -> None:
    spec = TransformerSpec(width=12, depth=1, heads=2, mixing=mixing, embedding=8, text_width=0)
    net, x = awaken(VideoTransformer(spec)), inputs(LOCAL, dtype=torch.float32)
    assert isinstance(net, VideoTransformer)
    save_network(tmp_path / "a", net, notes={"stage": "1"}, dtype=torch.float32)
    again = load_network(tmp_path / "a")
    assert isinstance(again, VideoTransformer)
    assert torch.equal(again(x.z_t, x.logsnr, x.cond), net(x.z_t, x.logsnr, x.cond))
    assert read_info(tmp_path / "a").spec == spec
    with pytest.raises(ValueError, match="holds a VideoTransformer; load it with load_network"):
        load_unet(tmp_path / "a")


def test_a_unet_is_the_same_file_either_way(tmp_path: Path) -> None:
    net = network()
    save_unet(tmp_path / "a", net)
    save_network(tmp_path / "b", net)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert isinstance(load_network(tmp_path / "a"), VideoUNet)


def test_a_plan_written_before_norms_could_be_chosen_is_read(tmp_path: Path) -> None:
    net, x = network(), inputs(LOCAL, dtype=torch.float32)
    plain = to_plain(LOCAL)
    del plain["norm"], plain["skip_scale"]
    metadata = {"format": "vdm_blocks.unet.1", "spec": json.dumps(plain), "notes": "{}"}
    save_tensors(tmp_path / "old", net.state_dict(), metadata)
    old = load_unet(tmp_path / "old")
    assert old.spec == LOCAL
    assert torch.equal(old(x.z_t, x.logsnr, x.cond), net(x.z_t, x.logsnr, x.cond))


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_on_disk_is_rounded_once(stored: torch.dtype, tmp_path: Path) -> None:
    net = network()
    save_unet(tmp_path / "a", net, dtype=stored)
    wide, narrow = load_unet(tmp_path / "a"), load_unet(tmp_path / "a", dtype=stored)
    for p, q, r in zip(net.parameters(), wide.parameters(), narrow.parameters(), strict=True):
        assert torch.equal(q, p.to(stored).float())
        assert torch.equal(r, p.to(stored))


def test_a_weight_too_large_for_the_file_is_refused(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.film.weight[0, 0] = 1e6
    with pytest.raises(
        ValueError, match=r"film.weight .* not finite as torch.float16; store them as torch.float32"
    ):
        save_unet(tmp_path / "a", net)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_unet(file, network())
    file.write_bytes(file.read_bytes()[:length])
    for read in (read_info, load_unet):
        with pytest.raises(ValueError, match="it may be truncated: copy or train it again"):
            read(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        load_unet(tmp_path / "none")


def test_a_strangers_file_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"not written by save_unet \(its format is 'not stated'"):
        load_unet(tmp_path / "a")


@pytest.mark.parametrize(
    "spec", ["{", '{"is": "UNetSpec"}', "[]", '{"is": "UNetSpec", "levels": [], "fold": 1}']
)
def test_a_spec_that_cannot_be_read_is_refused(spec: str, tmp_path: Path) -> None:
    save_tensors(
        tmp_path / "a", network().state_dict(), {"format": "vdm_blocks.unet.1", "spec": spec, "notes": "{}"}
    )
    with pytest.raises(ValueError, match="holds a spec that this version cannot read"):
        load_unet(tmp_path / "a")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tensors = network().state_dict()
    tensors["stranger"] = torch.zeros(1)
    tensors["film.bias"] = torch.zeros(3)
    del tensors["head.conv.bias"]
    metadata = {"format": "vdm_blocks.unet.1", "spec": json.dumps(to_plain(LOCAL)), "notes": "{}"}
    save_tensors(tmp_path / "a", tensors, metadata)
    with pytest.raises(
        ValueError, match=r"head.conv.bias is missing; stranger is not.*film.bias is \(3,\).*3 diff"
    ):
        load_unet(tmp_path / "a")


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), SafetensorError("No space left")], ids=["os", "rust"]
)
def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    file = tmp_path / "a"
    save_unet(file, network())
    before = file_hash(file)

    def broken(tensors: object, path: Path, metadata: object) -> None:  # noqa: ARG001
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr("vdm_blocks.checkpoint.save_file", broken)
    with pytest.raises(ValueError, match=r"cannot write .*No space left"):
        save_unet(file, network())
    assert file_hash(file) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_may_be_read_by_whoever_may_read_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(1)}, {})
    assert (tmp_path / "x.safetensors").stat().st_mode == plain.stat().st_mode


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; make it first"):
        save_unet(tmp_path / "none" / "a", network())
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="choose a folder that you may write to"):
        save_unet(tmp_path / "folder", network())
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
