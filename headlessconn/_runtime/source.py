"""Where the set comes from: DNS, or a list in the target itself. Every source speaks `Answer`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from headlessconn._runtime.dns import Resolver
from headlessconn.core.endpoint import Answer
from headlessconn.core.lookup import Lookup, Memory
from headlessconn.core.target import Target
from headlessconn.options import Options

LARGE = 200  # records from which on reading, understanding and applying each get a turn of the loop of their own


class Source(Protocol):
    """One target's source. One look-up, one answer; nobody but the engine waits between look-ups."""

    async def look_up(self) -> Answer: ...


class DnsSource:
    def __init__(self, target: Target, options: Options, resolver: Resolver, now: Callable[[], float]) -> None:
        self.memory = Memory()
        self._target = target
        self._options = options
        self._resolver = resolver
        self._now = now

    async def look_up(self) -> Answer:
        """One look-up, with all its questions and tries, within `lookup_timeout`."""
        search = self._resolver.conf.setting().search
        lookup = Lookup(self._target, search, self._options, self.memory, self._now())
        try:
            async with asyncio.timeout(self._options.lookup_timeout):
                while lookup.answer is None:
                    questions = lookup.questions
                    if len(questions) == 1:
                        replies = [await self._resolver.ask(questions[0])]
                    else:
                        replies = await asyncio.gather(*map(self._resolver.ask, questions))
                    if any(len(reply.addresses) + len(reply.services) > LARGE for reply in replies):
                        await asyncio.sleep(0)
                    lookup.told(replies)
        except TimeoutError:
            return Answer("dns", "no_news", why="timeout", name=lookup.questions[0].name)
        if len(lookup.answer.keys) > LARGE:
            await asyncio.sleep(0)
        return lookup.answer


class StaticSource:
    def __init__(self, target: Target) -> None:
        self._target = target

    async def look_up(self) -> Answer:
        return Answer("static", "records", self._target.addresses, why="as written", name=str(self._target))


def source_of(target: Target, options: Options, resolver: Resolver, now: Callable[[], float]) -> Source:
    match target.kind:
        case "static":
            return StaticSource(target)
        case "dns":
            return DnsSource(target, options, resolver, now)
