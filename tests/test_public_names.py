"""What users build on: the public names, frozen. A change here is a change for the changelog."""

from __future__ import annotations

import inspect

import pytest

import vdm_blocks

NAMES: tuple[str, ...] = ()


def test_the_public_names_are_these() -> None:
    assert sorted(vdm_blocks.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(vdm_blocks.__all__))
def test_a_public_name_is_there_and_explains_itself(name: str) -> None:
    thing = getattr(vdm_blocks, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        about = thing.__doc__ or ""
        assert about.strip(), f"{name} has no docstring"
        assert not about.startswith(f"{name}("), f"{name} has just the docstring that dataclasses make up"


@pytest.mark.parametrize("name", sorted(vdm_blocks.__all__))
def test_a_public_class_documents_its_methods(name: str) -> None:
    thing = getattr(vdm_blocks, name)
    methods = vars(thing).items() if inspect.isclass(thing) else ()
    silent = [
        method
        for method, value in methods
        if not method.startswith("_") and inspect.isfunction(value) and not (value.__doc__ or "").strip()
    ]
    assert not silent, f"{name} has methods without a docstring: {silent}"
