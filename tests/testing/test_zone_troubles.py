"""The zone goes wrong on demand: per name or for all, for a while or until told otherwise."""

import asyncio
import time

import dns.exception
import dns.flags
import dns.query
import pytest

from headlessconn.testing import Zone
from headlessconn.testing.zone import Listed, Port
from tests.testing.asking import addresses, ask, lines, rcode

WEB = "web.shop.svc.cluster.local."
API = "api.shop.svc.cluster.local."


def zone_of_two() -> Zone:
    zone = Zone()
    zone.headless("web.shop", [Listed(f"10.244.1.{n}", (Port("http", 8080),)) for n in (1, 2, 3, 4)])
    zone.headless("api.shop", [Listed("10.244.2.1", (Port("http", 8080),))])
    return zone


@pytest.mark.parametrize("said", ["SERVFAIL", "REFUSED", "NXDOMAIN", "FORMERR"])
async def test_an_rcode_instead_of_records(said: str) -> None:
    async with zone_of_two() as zone:
        with zone.trouble("web.shop", rcode=said):
            reply = await ask(zone, WEB)
            assert (rcode(reply), lines(reply.answer)) == (said, [])
            assert bool(reply.authority) == (said == "NXDOMAIN")
            assert rcode(await ask(zone, "_http._tcp." + WEB, "SRV")) == said, "it holds for the names below too"
            assert rcode(await ask(zone, API)) == "NOERROR"
        assert rcode(await ask(zone, WEB)) == "NOERROR"


async def test_for_all_names_for_a_type_for_a_transport_for_a_few_times() -> None:
    async with zone_of_two() as zone:
        with zone.trouble(rcode="SERVFAIL"):
            assert [rcode(await ask(zone, name)) for name in (WEB, API, "a.b.")] == ["SERVFAIL"] * 3
        with zone.trouble(rcode="SERVFAIL", types=["AAAA"]):
            assert [rcode(await ask(zone, WEB, rdtype)) for rdtype in ("A", "AAAA")] == ["NOERROR", "SERVFAIL"]
        with zone.trouble(rcode="REFUSED", transport="tcp"):
            assert [rcode(await ask(zone, WEB, tcp=tcp)) for tcp in (False, True)] == ["NOERROR", "REFUSED"]
        zone.trouble(rcode="SERVFAIL", times=2)
        assert [rcode(await ask(zone, WEB)) for _ in range(3)] == ["SERVFAIL", "SERVFAIL", "NOERROR"]
        with zone.trouble("one.example.", rcode="SERVFAIL"):
            assert rcode(await ask(zone, "a.one.example.")) == "SERVFAIL"
            assert rcode(await ask(zone, "a.example.")) == "REFUSED"


async def test_the_newest_trouble_rules_and_heal_ends_them() -> None:
    async with zone_of_two() as zone:
        everything = zone.trouble(rcode="SERVFAIL")
        zone.trouble("web.shop", rcode="REFUSED")
        assert rcode(await ask(zone, WEB)) == "REFUSED"
        assert rcode(await ask(zone, API)) == "SERVFAIL"
        zone.heal("web.shop")
        assert rcode(await ask(zone, WEB)) == "SERVFAIL"
        everything.end()
        everything.end()
        assert rcode(await ask(zone, WEB)) == "NOERROR"
        zone.trouble(rcode="SERVFAIL")
        zone.freeze()
        zone.cache(30)
        zone.headless("web.shop", [])
        zone.heal()
        assert rcode(await ask(zone, WEB)) == "NXDOMAIN"


async def test_silence_is_no_reply_but_a_logged_query() -> None:
    async with zone_of_two() as zone:
        with zone.trouble(silent=True):
            for tcp in (False, True):
                with pytest.raises(dns.exception.Timeout):
                    await ask(zone, WEB, tcp=tcp, timeout=0.2)
        assert rcode(await ask(zone, WEB)) == "NOERROR"
        assert [query.transport for query in zone.queries] == ["udp", "tcp", "udp"]


async def test_a_delayed_reply_comes_late_and_holds_up_nobody() -> None:
    async with zone_of_two() as zone:
        zone.trouble("web.shop", delay=0.3)
        asked_at = time.monotonic()
        late = [asyncio.create_task(ask(zone, WEB, tcp=tcp)) for tcp in (False, True)]
        assert rcode(await ask(zone, API)) == "NOERROR"
        for reply in await asyncio.gather(*late):
            assert len(lines(reply.answer)) == 4
        assert time.monotonic() - asked_at >= 0.3


async def test_stopping_forgets_delayed_replies() -> None:
    async with zone_of_two() as zone:
        zone.trouble(delay=3600)
        late = [asyncio.create_task(ask(zone, WEB, tcp=tcp)) for tcp in (False, True)]
        with zone.trouble("api.shop", rcode="REFUSED"):
            for tcp in (False, True):
                await ask(zone, API, tcp=tcp)
    for task in late:
        task.cancel()
    ended = await asyncio.gather(*late, return_exceptions=True)
    assert all(isinstance(error, BaseException) for error in ended)


async def test_truncation_on_demand() -> None:
    async with zone_of_two() as zone:
        with zone.trouble(truncate=True, transport="udp"):
            reply = await ask(zone, WEB)
            assert len(lines(reply.answer)) == 2
            assert reply.flags & dns.flags.TC
            assert len(await addresses(zone, WEB)) == 4
        with zone.trouble(truncate=True):
            reply = await ask(zone, WEB, tcp=True)
            assert len(lines(reply.answer)) == 2
            assert reply.flags & dns.flags.TC


async def test_a_wrong_id_is_not_taken_for_a_response() -> None:
    async with zone_of_two() as zone, asyncio.timeout(30):
        with zone.trouble(wrong_id=True):
            with pytest.raises(dns.query.BadResponse):
                await ask(zone, WEB)
            with pytest.raises(dns.query.BadResponse):
                await ask(zone, WEB, tcp=True)


async def test_lies_are_told_as_given() -> None:
    async with zone_of_two() as zone:
        with zone.trouble("web.shop", lie=["A 192.0.2.7", "60 A 192.0.2.8"]):
            assert lines((await ask(zone, WEB)).answer)[0] == f"{WEB} 5 A 192.0.2.7"
        with zone.trouble("web.shop", lie=["9 CNAME other.example.", "other.example. 1 IN A 192.0.2.9"]):
            reply = await ask(zone, WEB)
            assert lines(reply.answer) == [f"{WEB} 9 CNAME other.example.", "other.example. 1 A 192.0.2.9"]
        with zone.trouble("web.shop", lie=[]):
            reply = await ask(zone, WEB)
            assert (rcode(reply), lines(reply.answer), reply.authority) == ("NOERROR", [], [])
        with pytest.raises(ValueError, match="not a record"):
            zone.trouble(lie=["nonsense"])


async def test_frozen_answers_stay_while_the_sets_change() -> None:
    async with zone_of_two() as zone:
        zone.freeze("web.shop")
        zone.headless("web.shop", [Listed("10.244.1.9")])
        zone.headless("api.shop", [Listed("10.244.2.9")])
        assert len(await addresses(zone, WEB)) == 4
        assert await addresses(zone, API) == ["10.244.2.9"]
        assert [one.address for one in zone.listed("web.shop")] == ["10.244.1.9"]
        zone.thaw("web.shop")
        assert await addresses(zone, WEB) == ["10.244.1.9"]
        zone.thaw("web.shop")


async def test_a_cache_in_front_counts_down_and_hides_news() -> None:
    async with zone_of_two() as zone:
        zone.set_ttl(2)
        zone.cache(30)
        seen = {(2, "10.244.2.1")}
        first = await ask(zone, API)
        assert lines(first.answer) == [f"{API} 2 A 10.244.2.1"]
        gone = await ask(zone, "gone.shop.svc.cluster.local.")
        assert (rcode(gone), gone.authority[0].ttl) == ("NXDOMAIN", 2)
        zone.headless("api.shop", [Listed("10.244.2.9")])
        zone.headless("gone.shop", [Listed("10.244.3.9")])
        assert rcode(await ask(zone, "gone.shop.svc.cluster.local.")) == "NXDOMAIN"
        while (2, "10.244.2.9") not in seen:  # goes on for as long as the cache does: two seconds
            [line] = lines((await ask(zone, API)).answer)
            seen.add((int(line.split()[1]), line.split()[-1]))
        assert seen == {(2, "10.244.2.1"), (1, "10.244.2.1"), (2, "10.244.2.9")}
        zone.headless("api.shop", [])
        zone.cache(None)
        assert rcode(await ask(zone, API)) == "NXDOMAIN"


async def test_a_cache_keeps_nothing_longer_than_it_may() -> None:
    async with zone_of_two() as zone:
        zone.set_ttl(3600)
        zone.cache(30, "web.shop")
        assert (await ask(zone, WEB)).answer[0].ttl == 30
        assert (await ask(zone, API)).answer[0].ttl == 3600
