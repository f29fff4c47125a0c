from __future__ import annotations

import json
from dataclasses import replace

import pytest
from contract import BASE, SPECS

from vdm_blocks.models import AttentionPoolSpec, FourierSpec, TemporalConvSpec, UNetSpec
from vdm_blocks.models.plain import from_plain, to_plain


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_plan_survives_json(spec: UNetSpec) -> None:
    assert from_plain(UNetSpec, json.loads(json.dumps(to_plain(spec)))) == spec


def test_a_field_of_a_newer_version_with_a_default_is_optional() -> None:
    plain = to_plain(TemporalConvSpec(kernel=5))
    del plain["causal"]
    assert from_plain(TemporalConvSpec, plain) == TemporalConvSpec(kernel=5)


def test_a_plan_of_before_pools_and_embeddings_were_chosen_is_read() -> None:
    plain = to_plain(BASE)
    del plain["pool"], plain["logsnr"]
    assert from_plain(UNetSpec, plain) == BASE


def test_a_plans_text_is_what_it_was_and_tells_what_is_not() -> None:
    """The state of a training is found by its plan's text."""
    assert "pool" not in repr(BASE)
    assert "logsnr" not in repr(BASE)
    other = replace(BASE, pool=AttentionPoolSpec(heads=2), logsnr=FourierSpec())
    for name in ("pool=AttentionPoolSpec(heads=2)", "logsnr=FourierSpec(features=64, bandwidth=0.125)"):
        assert name in repr(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is": "LevelSpec"}, "expected a UNetSpec"),
        ({"newer": 1}, "has no newer; was this written by a newer version"),
        ({"levels": 3}, "expected a list, got 3"),
        ({"levels": [{"is": "UNetSpec"}]}, "expected a LevelSpec"),
        ({"levels": [{"is": "LevelSpec"}]}, "a LevelSpec needs channels"),
        ({"levels": [{"is": "LevelSpec", "channels": 4, "temporal": {"is": "Path"}}]}, "expected one of"),
        ({"fold": True}, "expected <class 'int'>, got True"),
        ({"fold": "2"}, "expected <class 'int'>, got '2'"),
        ({"fold": 0}, "fold must be at least 1"),
    ],
)
def test_other_data_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(UNetSpec, to_plain(BASE) | change)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        to_plain({"a": object()})
