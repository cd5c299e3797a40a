"""What is known about the pods: as events, as a picture, and as gauges for a dashboard."""

from collections.abc import Iterator

import headlessconn


async def follow(service: headlessconn.Service) -> None:
    """A line for each change, until the client is closed."""
    async for change in service.changes():
        for move in change.moves:
            before = move.before.value if move.before else "unknown"
            print(f"{move.endpoint}: {before} -> {move.after.value} ({move.why})")


def gauges(service: headlessconn.Service) -> Iterator[str]:
    """The snapshot in the text format that Prometheus reads."""
    view = service.snapshot
    target = f'target="{view.target}"'
    yield f"headlessconn_endpoints{{{target}}} {len(view.endpoints)}"
    yield f"headlessconn_ready{{{target}}} {len(view.ready)}"
    yield f"headlessconn_waiting{{{target}}} {view.waiting}"
    if view.answer_age is not None:  # the age of what we know: alert on it
        yield f"headlessconn_answer_age_seconds{{{target}}} {view.answer_age:.3f}"
    for member in view.members:
        labels = f'{target},endpoint="{member.endpoint}",state="{member.state.value}"'
        yield f"headlessconn_in_flight{{{labels}}} {member.in_flight}"
        if member.latency is not None:
            yield f"headlessconn_latency_seconds{{{labels}}} {member.latency:.6f}"
