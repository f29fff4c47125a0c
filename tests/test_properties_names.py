"""Every public name of the mathematics is given random input by a property-based test, or is no thing to call."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vdm_blocks import denoisers, diffusion, sampling, training

ROOMS = {"denoisers": denoisers, "diffusion": diffusion, "sampling": sampling, "training": training}
HERE = Path(__file__).resolve()
FILES = [HERE.parent / "properties.py", *sorted(HERE.parent.glob("test_properties_*.py"))]

# What is only an annotation: nothing to call, and its implementations are all among the rest.
CONTRACTS = {
    "Decay", "Decoder", "NoiseSchedule", "PathSchedule", "Prediction", "Scale", "StepRule", "TimeLaw", "TimeSampler",
    "Trace", "VideoNoise", "Weighting",
}  # fmt: skip
ALIASES = {"Draw", "NoiseSource"}
# Without a log-SNR of its own; five of the schedules are one.
ABSTRACT = {"VariancePreserving"}
NOTHING_TO_CALL = CONTRACTS | ALIASES | ABSTRACT


class Used(ast.NodeVisitor):
    """The rooms' names that code uses, annotations and imports aside."""

    def __init__(self) -> None:
        self.imported: set[str] = set()
        self.names: set[str] = set()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[:1] == ["vdm_blocks"]:
            self.imported |= {alias.name for alias in node.names}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for each in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults, *node.body):
            if each is not None:
                self.visit(each)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in ROOMS:
            self.names.add(node.attr)
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.imported:
            self.names.add(node.id)


def used_by(text: str) -> set[str]:
    visitor = Used()
    visitor.visit(ast.parse(text))
    return visitor.names


EXERCISED = {name for file in FILES if file != HERE for name in used_by(file.read_text(encoding="utf-8"))}
PUBLIC = sorted({name for room in ROOMS.values() for name in room.__all__})


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in NOTHING_TO_CALL])
def test_a_property_gives_it_random_input(name: str) -> None:
    assert name in EXERCISED, (
        f"no tests/test_properties_*.py calls {name}; draw its options and its input there"
    )


def test_what_is_not_called_exists_and_is_a_contract() -> None:
    assert set(PUBLIC) >= NOTHING_TO_CALL
    assert not EXERCISED & NOTHING_TO_CALL
    for name in CONTRACTS:
        (found,) = {
            id(vars(room)[name]): vars(room)[name] for room in ROOMS.values() if name in room.__all__
        }.values()
        assert getattr(found, "_is_protocol", False), f"{name} is no protocol"


def test_an_import_or_an_annotation_is_no_use() -> None:
    text = "from vdm_blocks.diffusion import EPS, V\nx: diffusion.X0 = f(V)\ndef g(a: EPS) -> EPS: sampling.DDIM()\n"
    assert used_by(text) == {"V", "DDIM"}
