"""Sentences for logs and errors that every driver says alike."""

from __future__ import annotations

from headlessconn.core.effects import Change
from headlessconn.core.explain import advice_on
from headlessconn.core.snapshot import Snapshot
from headlessconn.errors import NoEndpoints

NAMED = 8  # endpoints that a log line names


def line_of(change: Change) -> str:
    """`+1 -1 =3 +10.244.1.9:8080 -10.244.1.7:8080`"""
    added, removed = change.first_added(NAMED), change.first_removed(NAMED)
    words = [f" +{endpoint}" for endpoint in added] + [f" -{endpoint}" for endpoint in removed]
    rest = change.count - len(words)
    return change.counts() + "".join(words) + (f" and {rest} more" if rest else "")


def no_endpoints(view: Snapshot, waited: float, wanted: int = 1) -> NoEndpoints:
    """What to raise when a caller has waited long enough, by what is known at that moment."""
    said = view.trouble or (view.answer.why if view.answer else "") or "nothing yet"
    age = None if view.trouble else view.answer_age  # else it would be that of another answer
    text = advice_on(view)
    return NoEndpoints(view.target, waited, said, age, text, len(view.ready), wanted)
