"""The list of mutants stays in step with the code: each still has its one place. `make mutants` plants them."""

from pathlib import Path

import pytest

import headlessconn
from tests.mutants.plant import Mutant, mutants

PACKAGE = Path(headlessconn.__file__).parent


@pytest.mark.parametrize("mutant", list(mutants()), ids=lambda mutant: mutant.name)
def test_its_place_is_there(mutant: Mutant) -> None:
    text = (PACKAGE / mutant.file).read_text(encoding="utf-8")
    assert mutant.planted(text) != text


def test_there_are_enough() -> None:
    names = [mutant.name for mutant in mutants()]
    assert len(names) == len(set(names)) >= 40
