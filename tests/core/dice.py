"""Dice for tests: loaded ones, so that times are exact, and hypothesis's, thrown alike in every run."""

import random

from hypothesis import settings

# The same examples each time: a run that fails can be run again. No deadline: a busy machine is no failure.
repeatable = settings(derandomize=True, deadline=None, database=None)


class Loaded(random.Random):
    """Every throw of `random()` gives `value`: 0.0 is no jitter, 1.0 is the most that jitter may be."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value
