"""Layer 1, the core: it decides and never acts.

Standard library only; no clock, socket, async or logging. Every method that cares is told `now` (seconds, monotonic)
and dice are given as a `random.Random`, so that the engine that runs is the engine that is simulated.
"""
