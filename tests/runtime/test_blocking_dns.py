"""The blocking transport says what the other one says: the same tests, by a look-up in a thread.

What the thread does with many things at once is tried at the end.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

import headlessconn._runtime.blocking_dns as dns_runtime
from headlessconn._runtime.blocking_dns import BlockingResolver, blocking_source_of
from headlessconn._runtime.poll import Overdue, Poll
from headlessconn._runtime.source import Source
from headlessconn.core.endpoint import Answer
from headlessconn.core.target import Target
from headlessconn.options import Options
from tests.runtime import test_cases, test_dns_hostile, test_dns_srv
from tests.runtime.scripted_dns import Scripted, settings
from tests.runtime.test_cases import (  # noqa: F401 - they run here too
    test_a_pod_of_a_stateful_set_by_its_short_name_never_leads_out_of_the_cluster,
    test_a_scripted_cluster,
    test_a_service_of_many_pods,
    test_an_alias_is_followed_to_its_canonical_name,
)
from tests.runtime.test_dns_hostile import (  # noqa: F401
    TARGET,
    WHOLE,
    good,
    test_a_perfect_forgery_from_another_port_is_not_even_received,
    test_a_server_that_fails_once_is_asked_again,
    test_a_silent_server_does_not_use_up_the_next_look_up_as_well,
    test_a_truncated_reply_is_fetched_by_tcp_and_so_is_the_next_at_once,
    test_damaged_replies_and_noise_never_fail_in_another_way,
    test_forgeries_alone_are_no_news,
    test_of_three_servers_one_dead_and_one_lying_the_third_is_heard_and_remembered,
    test_tcp_that_drips_or_never_ends_costs_neither_time_nor_memory,
    test_three_dead_servers_are_tried_twice_and_said,
    test_three_silent_servers_end_with_the_look_up,
    test_truncated_over_tcp_is_never_a_set,
    test_what_is_not_the_reply_is_passed_over_and_the_reply_is_heard,
    test_when_the_good_one_dies_the_others_have_their_turn,
    test_without_tcp_a_truncated_reply_is_no_news_and_a_smaller_set_is_heard_by_udp,
)
from tests.runtime.test_dns_srv import (  # noqa: F401
    test_a_candidate_too_long_for_dns_is_left_out_and_a_search_domain_that_is_no_name_is_no_news,
    test_a_target_that_no_host_has_as_its_name_is_asked_for_like_any_other,
    test_srv_truncated_over_tcp_is_no_news_otherwise,
    test_srv_truncated_over_tcp_takes_the_addresses_from_the_name_of_the_port,
    test_srv_without_its_glue_asks_for_every_pod_when_ports_differ,
    test_srv_without_its_glue_is_completed_by_one_question_when_there_is_one_port,
)


class InAThread:
    """A source whose look-ups block: each in a thread of its own, so that the server's loop may go on."""

    def __init__(self, target: str, options: Options) -> None:
        self._poll = Poll(time.monotonic)
        self._options = options
        self._source = blocking_source_of(Target.parse(target), options, BlockingResolver(options, self._poll))

    async def look_up(self) -> Answer:
        return await asyncio.to_thread(self._look_up)

    def _look_up(self) -> Answer:
        said: list[Answer] = []
        self._poll.spawn(told(self._source, said.append), time.monotonic() + self._options.lookup_timeout)
        while not said:
            self._poll.run(time.monotonic() + 60.0)
        assert self._poll.is_idle, "every socket is closed, and nothing goes on"
        return said[0]

    def __del__(self) -> None:
        self._poll.close()


async def told(source: Source, tell: Callable[[Answer], None]) -> None:
    tell(await source.look_up())


async def look_up(target: str, *servers: Scripted | str, **more: object) -> Answer:
    return await InAThread(target, settings(*servers, **more)).look_up()


@pytest.fixture(autouse=True)
def by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patient, as in the tests that run here."""
    monkeypatch.setattr(dns_runtime, "TRY_TIMEOUT", 30.0)
    for module in (test_cases, test_dns_hostile, test_dns_srv):
        monkeypatch.setattr(module, "look_up", look_up)
        monkeypatch.setattr(module, "source", InAThread, raising=False)


# ---- many at once, in one thread ---------------------------------------------------------------------------------


async def test_one_silent_server_keeps_no_other_look_up_waiting() -> None:
    async with Scripted() as silent, Scripted(good) as honest:

        def both() -> list[str]:
            poll = Poll(time.monotonic)
            order: list[str] = []
            for name, server, seconds in (("silent", silent, 1.0), ("honest", honest, 60.0)):
                options = settings(server, lookup_timeout=seconds)
                source = blocking_source_of(Target.parse(TARGET), options, BlockingResolver(options, poll))
                poll.spawn(told(source, lambda answer, name=name: order.append(f"{name}: {answer.why}")))  # type: ignore[misc]
            while not order:
                poll.run(time.monotonic() + 60.0)
            poll.close()
            return order

        assert await asyncio.to_thread(both) == ["honest: NOERROR"]


def test_closing_ends_whatever_waits() -> None:
    poll = Poll(time.monotonic)
    ended: list[str] = []

    async def waits() -> None:
        try:
            await poll.sleep(3600.0)
        finally:
            ended.append("closed")

    poll.spawn(waits())
    poll.close()
    poll.wake()  # harmless
    poll.nudge()
    assert ended == ["closed"]


def test_a_deadline_is_told_once_and_its_answer_is_waited_for() -> None:
    poll = Poll(time.monotonic)
    seen: list[str] = []

    async def slow() -> None:
        try:
            await poll.sleep(3600.0)
        except Overdue:
            seen.append("overdue")
        await poll.sleep(0.0)
        seen.append("ended")

    poll.spawn(slow(), time.monotonic() + 0.01)
    while seen != ["overdue", "ended"]:
        poll.run(time.monotonic() + 1.0)
    assert poll.is_idle
    poll.close()


def test_waking_is_heard_once_however_often_it_was_said() -> None:
    poll = Poll(time.monotonic)
    for _ in range(100_000):  # more than any socket's buffer holds
        poll.wake()
    poll.run(time.monotonic() + 3600.0)
    before = time.monotonic()
    poll.run(before + 0.05)
    assert time.monotonic() >= before + 0.05, "there was nothing left to hear"
    poll.close()
