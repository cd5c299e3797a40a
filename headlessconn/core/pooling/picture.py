"""The frozen picture of a pool, taken when somebody looks."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType

from headlessconn.core.pooling.figures import Holder, PodView, PoolSnapshot
from headlessconn.core.pooling.machine import Pooling
from headlessconn.core.pooling.slot import Phase, Pod, Slot, spelled


def picture(pool: Pooling, now: float) -> PoolSnapshot:
    phases = Counter(slot.phase for slot in pool.slots)
    figures = pool.figures
    return PoolSnapshot(
        min_size=pool.rules.min_size,
        max_size=pool.rules.max_size,
        size=pool.size,
        idle=phases[Phase.IDLE],
        busy=phases[Phase.BUSY],
        opening=phases[Phase.OPENING],
        checking=phases[Phase.CHECKING],
        resetting=phases[Phase.RESETTING],
        closing=phases[Phase.CLOSING],
        waiting=len(pool.waiting),
        pods=tuple(_pod(pod, pool, now) for pod in pool.pods),
        holders=holders(pool, now),
        opened=figures.opened,
        failed=figures.failed,
        moves=figures.moves,
        closed=MappingProxyType(dict(figures.closed)),
        abandoned=figures.abandoned,
        waits=figures.waits,
        waited=figures.waited,
        longest_wait=figures.longest_wait,
        gave_up=figures.gave_up,
        turned_away=figures.turned_away,
        last_failure=last_failure(pool),
        last_failure_age=None if figures.last_error is None else now - figures.last_failed_at,
    )


def holders(pool: Pooling, now: float) -> tuple[Holder, ...]:
    """Who holds what, the longest first."""
    return tuple(_holder(slot, now) for slot in pool.held)


def last_failure(pool: Pooling) -> str:
    """`10.244.1.7:3306: refused …`, or "" when every dial went well."""
    figures = pool.figures
    if figures.last_error is None:
        return ""
    where = f"{figures.last_endpoint}: " if figures.last_endpoint else ""
    return where + said(figures.last_error)


def said(error: BaseException) -> str:
    """An error in one line; its kind is in it, since some say nothing else."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _holder(slot: Slot, now: float) -> Holder:
    assert slot.pod is not None
    return Holder(spelled(slot.taken_by), slot.pod.endpoint, now - slot.since)


def _pod(pod: Pod, pool: Pooling, now: float) -> PodView:
    dials = sum(1 for slot in pool.slots if slot.pod is pod and slot.phase is Phase.OPENING)
    trouble = "" if pod.error is None else said(pod.error)
    return PodView(pod.endpoint, len(pod.idle), pod.busy, dials, trouble, max(0.0, pod.held_until - now))
