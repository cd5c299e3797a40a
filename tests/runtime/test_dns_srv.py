"""SRV over real sockets: what comes without its glue, or is cut even over TCP, is completed, or it is no news."""

from collections.abc import Callable

import pytest

import headlessconn._runtime.dns as dns_runtime
from tests.runtime.scripted_dns import PODS, SOA, WEB, Asked, Datagrams, Scripted, addresses, endpoints, look_up, reply


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a second must not make a second try of one."""
    monkeypatch.setattr(dns_runtime, "TRY_TIMEOUT", 30.0)


BY_NAME = "web.shop.svc.cluster.local.:http"
HTTP = "_http._tcp." + WEB


def pod_name(number: int) -> str:
    return f"pod-{number}.{WEB}"


def srv(*ports: int) -> list[str]:
    return [f"{HTTP} 5 IN SRV 0 1 {port} {pod_name(i)}" for i, port in enumerate(ports)]


def glue(*numbers: int) -> list[str]:
    return [f"{pod_name(i)} 5 IN A 10.244.1.{i}" for i in numbers]


def scripted(answers: dict[str, Callable[[bytes], bytes]]) -> Callable[[Asked], Datagrams]:
    """Replies by "type name"; anything else is REFUSED."""

    def answer(asked: Asked) -> Datagrams:
        make = answers.get(f"{asked.type} {asked.name}")
        return [make(asked.wire) if make else reply(asked.wire, rcode="REFUSED")]

    return answer


def nodata(query: bytes) -> bytes:
    return reply(query, authority=[SOA])


async def test_srv_truncated_over_tcp_takes_the_addresses_from_the_name_of_the_port() -> None:
    pods = [f"10.244.1.{i}" for i in range(5)]
    answers = {
        f"SRV {HTTP}": lambda q: reply(q, srv(8080, 8080, 8080), additional=glue(1), truncated=True),
        f"A {HTTP}": lambda q: reply(q, addresses(HTTP, pods, ttl=3)),
    }
    async with Scripted(scripted(answers)) as server:
        answer = await look_up(BY_NAME, server)
        assert endpoints(answer) == [f"{pod}:8080" for pod in pods]
        assert answer.ttl == 3
        assert [facts.hostname for facts in answer.about.values()] == [pod_name(1)]
        assert server.texts() == [f"{HTTP} SRV udp", f"{HTTP} SRV tcp", f"{HTTP} A udp"]


@pytest.mark.parametrize(
    ("services", "a_reply", "why"),
    [
        (srv(8080, 9090), nodata, "truncated over TCP, with several ports"),
        ([], nodata, "truncated over TCP"),
        (srv(8080), lambda q: reply(q, addresses(HTTP), truncated=True), "truncated over TCP"),
        (srv(8080), nodata, "SRV lists pods, and no address can be had for them"),
        (srv(8080), lambda q: reply(q, rcode="SERVFAIL"), "SERVFAIL"),
    ],
)
async def test_srv_truncated_over_tcp_is_no_news_otherwise(
    services: list[str], a_reply: Callable[[bytes], bytes], why: str
) -> None:
    answers = {
        f"SRV {HTTP}": lambda q: reply(q, services, truncated=True),
        f"A {HTTP}": a_reply,
        f"AAAA {HTTP}": nodata,
    }
    async with Scripted(scripted(answers)) as server:
        answer = await look_up(BY_NAME, server)
        assert (answer.kind, answer.why) == ("no_news", why)


async def test_srv_without_its_glue_is_completed_by_one_question_when_there_is_one_port() -> None:
    pods = ["10.244.1.0", "10.244.1.1", "10.244.1.2"]
    answers = {
        f"SRV {HTTP}": lambda q: reply(q, srv(8080, 8080, 8080), additional=glue(2)),
        f"A {HTTP}": lambda q: reply(q, addresses(HTTP, pods)),
    }
    async with Scripted(scripted(answers)) as server:
        assert endpoints(await look_up(BY_NAME, server)) == [f"{pod}:8080" for pod in pods]
        assert len(server.asked) == 2


async def test_srv_without_its_glue_asks_for_every_pod_when_ports_differ() -> None:
    ports = [8080 + i % 2 for i in range(150)]  # more than are asked at once
    answers: dict[str, Callable[[bytes], bytes]] = {f"SRV {HTTP}": lambda q: reply(q, srv(*ports), additional=glue(7))}
    for i in range(150):
        answers[f"A {pod_name(i)}"] = lambda q, i=i: reply(q, glue(i))  # type: ignore[misc]
    async with Scripted(scripted(answers)) as server:
        answer = await look_up(BY_NAME, server)
        assert len(answer.keys) == 150, "a set lacks nobody"
        assert answer.about[bytes((10, 244, 1, 149)) + (8081).to_bytes(2, "big")].hostname == pod_name(149)
        assert f"{pod_name(7)} A udp" not in server.texts()


async def test_a_target_that_no_host_has_as_its_name_is_asked_for_like_any_other() -> None:
    odd = r"a\.b\010\255." + WEB
    answers = {
        f"SRV {HTTP}": lambda q: reply(q, [f"{HTTP} 5 IN SRV 0 1 1 {odd}", f"{HTTP} 5 IN SRV 0 1 2 {odd}"]),
        f"A {odd}": lambda q: reply(q, [f"{odd} 5 IN A 10.244.1.1"]),
    }
    async with Scripted(scripted(answers)) as server:
        answer = await look_up(BY_NAME, server)
        assert endpoints(answer) == ["10.244.1.1:1", "10.244.1.1:2"]
        assert all(facts.hostname.isprintable() for facts in answer.about.values())


# ---- names that cannot be asked for ------------------------------------------------------------------------------


async def test_a_candidate_too_long_for_dns_is_left_out_and_a_search_domain_that_is_no_name_is_no_news() -> None:
    long = ".".join(["x" * 60] * 4)
    async with Scripted(lambda asked: [reply(asked.wire, addresses(asked.name))]) as server:
        answer = await look_up(f"{long}:80", server)
        assert endpoints(answer) == [f"{pod}:80" for pod in PODS]
        assert server.texts() == [f"{long}. A udp"]
        answer = await look_up("web:80", server, search=("a..b",), cluster_zone="a")
        assert answer.kind == "no_news"
        assert "cannot be asked" in answer.why
