"""The judge's numbers are those of the core: who changes one changes the other, and knows it."""

import pytest

from headlessconn.core import attempts, budget, health, lane, silence
from headlessconn.testing.sim import promises

KEPT_BY = {
    budget: ("RATIO", "PER_SECOND", "BURST", "SAVED"),
    attempts: ("SENT", "COPIES", "DIALS", "ABREAST"),
    silence: ("SILENT_MIN", "SLOWER", "ALONE", "OTHERS"),
    lane: ("ENOUGH", "KEPT"),
    health: ("REDIAL_MAX",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in KEPT_BY.items() for name in names])
def test_a_promise_is_kept(module: object, name: str) -> None:
    assert getattr(module, name) == getattr(promises, name)


def test_all_are_named_here() -> None:
    said = {name for name in vars(promises) if name.isupper()}
    assert said == {name for names in KEPT_BY.values() for name in names}
