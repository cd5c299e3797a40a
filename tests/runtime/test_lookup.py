"""One look-up, sans-IO: which names are asked for in which order, and what the replies come to."""

from dataclasses import dataclass, field

import pytest

from headlessconn.core.endpoint import Answer, address_of, port_of
from headlessconn.core.lookup import NEGATIVE_MAX, SRV_TARGETS, SRV_TARGETS_MAX, TTL_MAX, Lookup, Memory, Reply
from headlessconn.core.names import Search
from headlessconn.core.target import Target
from headlessconn.options import Options

ZONE = "cluster.local."
IN_SHOP = Search.of(("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), 5)
WITH_NODE = Search.of((*IN_SHOP.domains, "corp.example"), 5)
OUTSIDE = Search.of(("corp.example",), 1)

NXDOMAIN = Reply("NXDOMAIN", negative_ttl=5.0)
NODATA = Reply("NOERROR", negative_ttl=5.0)


def packed(*addresses: str) -> frozenset[bytes]:
    return frozenset(bytes(map(int, a.split("."))) if "." in a else bytes(15) + bytes((int(a, 16),)) for a in addresses)


def records(*addresses: str, ttl: float = 5.0) -> Reply:
    """`10.0.0.1` is an A record; `7` stands for AAAA ::7."""
    return Reply("NOERROR", packed(*addresses), ttl=ttl)


def srv(*services: tuple[int, str], glue: dict[str, tuple[str, ...]] | None = None, truncated: bool = False) -> Reply:
    found = {target: sorted(packed(*addresses)) for target, addresses in (glue or {}).items()}
    return Reply("NOERROR", services=services, glue=found, ttl=5.0, truncated=truncated)


@dataclass
class Cluster:
    """DNS as a table, `"A name"` to the reply; what is not in it is NXDOMAIN. `asked` is every question of the last
    look-up, and each name's look-ups share one memory."""

    says: dict[str, Reply] = field(default_factory=dict)
    search: Search = IN_SHOP
    options: Options = field(default_factory=Options)
    memory: Memory = field(default_factory=Memory)
    asked: list[str] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)

    def look_up(self, target: str, now: float = 0.0) -> Answer:
        lookup = Lookup(Target.parse(target), self.search, self.options, self.memory, now)
        self.asked, self.rounds = [], []
        while lookup.answer is None:
            questions = [f"{question.type} {question.name}" for question in lookup.questions]
            assert questions, "a look-up without an answer asks on"
            self.asked += questions
            self.rounds.append(len(questions))
            lookup.told([self.says.get(question, NXDOMAIN) for question in questions])
        return lookup.answer


def found(answer: Answer) -> list[str]:
    return sorted(f"{address_of(key)}:{port_of(key)}" for key in answer.keys)


# ---- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "ndots", "candidates"),
    [
        ("db", 5, ["db.shop.svc.cluster.local.", "db.svc.cluster.local.", "db.cluster.local.", "db."]),
        ("a.b", 5, ["a.b.shop.svc.cluster.local.", "a.b.svc.cluster.local.", "a.b.cluster.local.", "a.b."]),
        ("a.b", 1, ["a.b.", "a.b.shop.svc.cluster.local.", "a.b.svc.cluster.local.", "a.b.cluster.local."]),
        ("db", 0, ["db.", "db.shop.svc.cluster.local.", "db.svc.cluster.local.", "db.cluster.local."]),
    ],
)
def test_candidates_in_the_order_of_the_search_list_and_ndots(host: str, ndots: int, candidates: list[str]) -> None:
    search = Search.of(IN_SHOP.domains, ndots)
    assert list(search.candidates(host, absolute=False)) == candidates
    assert search.candidates(host, absolute=True) == (f"{host}.",)


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("db", ["shop.svc.cluster.local."]),
        ("db.data", ["data.svc.cluster.local.", "data.shop.svc.cluster.local."]),
        ("db-0.db.data", ["data.svc.cluster.local."]),
        ("db.data.svc", ["data.svc.cluster.local."]),
        ("db.svc", []),
        ("db.data.svc.cluster.local", ["data.svc.cluster.local."]),
        ("DB.Data.svc.Cluster.Local", ["data.svc.cluster.local."]),
        ("_http._tcp.db.data", ["data.svc.cluster.local."]),
    ],
)
def test_the_names_that_show_whether_a_name_is_the_cluster_s(host: str, names: list[str]) -> None:
    assert sorted(IN_SHOP.namespace_names(host)) == sorted(names)


def test_outside_of_a_cluster_no_name_shows_it() -> None:
    assert OUTSIDE.namespace_names("db") == ()
    assert not OUTSIDE.in_cluster


# ---- the walk ----------------------------------------------------------------------------------------------------


def test_a_name_that_gave_records_in_the_zone_is_pinned_and_asked_alone_from_then_on() -> None:
    cluster = Cluster({"A db.data.svc.cluster.local.": records("10.0.0.1")})
    answer = cluster.look_up("db.data:80")
    assert (found(answer), answer.name, answer.outside) == (["10.0.0.1:80"], "db.data.svc.cluster.local.", False)
    assert cluster.asked == ["A db.data.shop.svc.cluster.local.", "A db.data.svc.cluster.local."]
    cluster.says = {"A db.data.shop.svc.cluster.local.": records("10.0.0.66"), "A db.data.": records("10.0.0.67")}
    answer = cluster.look_up("db.data:80")
    assert (answer.kind, answer.why, answer.outside) == ("nobody", "NXDOMAIN", False)
    assert {question.split()[1] for question in cluster.asked} == {"db.data.svc.cluster.local."}


def test_a_name_outside_the_zone_is_never_pinned() -> None:
    cluster = Cluster({"A web.corp.example.": records("192.0.2.1")}, WITH_NODE)
    answer = cluster.look_up("web:80")
    assert (found(answer), answer.outside) == (["192.0.2.1:80"], True)
    assert cluster.memory.pinned is None
    cluster.says = {"A web.shop.svc.cluster.local.": records("10.0.0.1")}
    answer = cluster.look_up("web:80")
    assert (found(answer), answer.outside) == (["10.0.0.1:80"], False)


def test_empty_and_ours_a_wildcard_of_the_node_s_domain_is_not_even_asked_for() -> None:
    cluster = Cluster({"A shop.svc.cluster.local.": NODATA, "A web.corp.example.": records("203.0.113.99")}, WITH_NODE)
    answer = cluster.look_up("web:80")
    assert (answer.kind, answer.why, answer.ttl, answer.outside) == ("nobody", "NXDOMAIN", 5.0, False)
    assert cluster.asked == [
        "A web.shop.svc.cluster.local.",
        "A web.svc.cluster.local.",
        "A web.cluster.local.",
        "A shop.svc.cluster.local.",
    ]


def test_a_namespace_that_does_not_exist_leaves_the_name_to_the_world() -> None:
    cluster = Cluster({"A api.example.": records("192.0.2.1")}, WITH_NODE)
    answer = cluster.look_up("api.example:443")
    assert (found(answer), answer.outside) == (["192.0.2.1:443"], True)
    assert "A example.svc.cluster.local." in cluster.asked
    cluster.says = {}
    answer = cluster.look_up("api.example:443")
    assert (answer.kind, answer.why, answer.outside) == ("nobody", "NXDOMAIN", True)


def test_a_stateful_set_s_pod_by_its_short_name_is_ours_while_its_service_has_any_pod() -> None:
    says = {"A db.shop.svc.cluster.local.": records("10.0.0.2"), "A db-1.db.corp.example.": records("203.0.113.99")}
    cluster = Cluster(says, WITH_NODE)
    answer = cluster.look_up("db-1.db:3306")
    assert (answer.kind, answer.why, answer.outside) == ("nobody", "NXDOMAIN", False)
    assert cluster.rounds == [1, 1, 1, 2], "both at once, before anything outside"


def test_a_name_written_out_is_found_after_the_node_s_domain_was_passed_over() -> None:
    """`db.data.svc.cluster.local` has four dots: the search list comes first, the node's own domain too."""
    says = {"A data.svc.cluster.local.": NODATA, "A db.data.svc.cluster.local.": records("10.0.0.1")}
    cluster = Cluster(says | {"A db.data.svc.cluster.local.corp.example.": records("203.0.113.99")}, WITH_NODE)
    assert found(cluster.look_up("db.data.svc.cluster.local:80")) == ["10.0.0.1:80"]


def test_what_exists_in_the_zone_without_records_is_ours_too() -> None:
    cluster = Cluster({"A pay.shop.svc.cluster.local.": NODATA, "AAAA pay.shop.svc.cluster.local.": NODATA}, WITH_NODE)
    cluster.says["A pay.corp.example."] = records("203.0.113.99")
    answer = cluster.look_up("pay:443")
    assert (answer.kind, answer.why, answer.outside) == ("nobody", "NODATA", False)
    assert answer.name == "pay.shop.svc.cluster.local."


@pytest.mark.parametrize("trouble", ["SERVFAIL", "REFUSED", "timeout"])
def test_trouble_anywhere_on_the_walk_ends_it_without_news(trouble: str) -> None:
    """Going on to the next name would end up with another name's records."""
    for name in ("A web.shop.svc.cluster.local.", "A web.cluster.local.", "A shop.svc.cluster.local."):
        cluster = Cluster({name: Reply(trouble), "A web.corp.example.": records("203.0.113.99")}, WITH_NODE)
        answer = cluster.look_up("web:80")
        assert (answer.kind, answer.why) == ("no_news", trouble)
        assert cluster.asked[-1] == name


def test_a_name_too_long_for_dns_is_left_out_of_the_walk() -> None:
    host = ".".join(["x" * 60] * 4)
    cluster = Cluster({f"A {host}.": records("10.0.0.1")})
    assert found(cluster.look_up(f"{host}:80")) == ["10.0.0.1:80"]
    assert cluster.asked == [f"A {host}."]
    answer = cluster.look_up(f"{'.'.join(['x' * 60] * 4)}:http")
    assert (answer.kind, answer.why) == ("no_news", "no name to ask")


# ---- TTLs --------------------------------------------------------------------------------------------------------


def test_ttls_are_clamped() -> None:
    name = "web.shop.svc.cluster.local."
    cluster = Cluster({f"A {name}": records("10.0.0.1", ttl=2.0**31 - 1)})
    assert cluster.look_up(f"{name}:80").ttl == TTL_MAX
    for said, kept in ((0.0, 0.0), (12.0, 12.0), (1e9, NEGATIVE_MAX), (None, None)):
        cluster = Cluster({f"A {name}": Reply("NXDOMAIN", negative_ttl=said)})
        assert cluster.look_up(f"{name}:80").ttl == kept


def test_truncated_is_no_news_whatever_it_holds() -> None:
    name = "web.shop.svc.cluster.local."
    for rcode in ("NOERROR", "NXDOMAIN"):
        for kind, target in (("A", f"{name}:80"), ("SRV", name)):
            reply = Reply(rcode, packed("10.0.0.1") if kind == "A" else frozenset(), truncated=True)
            answer = Cluster({f"{kind} {name}": reply}).look_up(target)
            assert (answer.kind, answer.why) == ("no_news", "truncated over TCP")


# ---- families ----------------------------------------------------------------------------------------------------

WEB = "web.shop.svc.cluster.local."
V4, V6 = f"A {WEB}", f"AAAA {WEB}"
HOLD = 10.0


def web(**says: Reply) -> Cluster:
    return Cluster({f"{kind} {WEB}": reply for kind, reply in says.items()}, options=Options(hold_nx=HOLD))


@pytest.mark.parametrize(
    ("family", "asked", "seen"),
    [("auto", ["A"], ["10.0.0.1:80"]), ("4", ["A"], ["10.0.0.1:80"]), ("6", ["AAAA"], ["::7:80"])],
)
def test_one_family_is_asked_for_and_used(family: str, asked: list[str], seen: list[str]) -> None:
    cluster = web(A=records("10.0.0.1"), AAAA=records("7"))
    cluster.options = Options.of(None, {"family": family})
    assert found(cluster.look_up(f"{WEB}:80")) == seen
    assert cluster.asked == [f"{kind} {WEB}" for kind in asked]


def test_the_other_family_when_the_first_is_nodata_and_it_is_first_from_then_on() -> None:
    cluster = web(A=NODATA, AAAA=records("7"))
    for asked in ([V4, V6], [V6], [V6]):
        assert found(cluster.look_up(f"{WEB}:80")) == ["::7:80"]
        assert cluster.asked == asked
    cluster.says = {V4: records("10.0.0.1"), V6: records("7")}
    assert found(cluster.look_up(f"{WEB}:80")) == ["::7:80"], "no change while the one in use has records"


def test_a_pinned_family_has_no_other() -> None:
    cluster = web(A=records("10.0.0.1"), AAAA=NODATA)
    cluster.options = Options(family="6")
    answer = cluster.look_up(f"{WEB}:80")
    assert (answer.kind, answer.why, cluster.asked) == ("nobody", "NODATA", [V6])


@pytest.mark.parametrize("empty", [NODATA, NXDOMAIN], ids=["NODATA", "NXDOMAIN"])
def test_the_family_changes_only_after_it_was_empty_for_hold_nx_while_the_other_had_records(empty: Reply) -> None:
    """NXDOMAIN for A beside records for AAAA: two caches, filled at different times."""
    cluster = web(A=records("10.0.0.1"), AAAA=records("7"))
    cluster.look_up(f"{WEB}:80", now=0)
    cluster.says[V4] = empty
    for now in (100.0, 105.0, 109.9):
        answer = cluster.look_up(f"{WEB}:80", now)
        assert (answer.kind, answer.keys) == ("nobody", frozenset())
        assert cluster.asked == [V4, V6]
    assert found(cluster.look_up(f"{WEB}:80", 110.0)) == ["::7:80"]
    assert found(cluster.look_up(f"{WEB}:80", 111.0)) == ["::7:80"]
    assert cluster.asked == [V6]


def test_a_family_that_is_back_in_time_starts_its_hold_afresh() -> None:
    cluster = web(A=records("10.0.0.1"), AAAA=records("7"))
    for now, said, kind in ((0, None, "records"), (1, NODATA, "nobody"), (9, None, "records"), (12, NODATA, "nobody")):
        cluster.says[V4] = said or records("10.0.0.1")
        answer = cluster.look_up(f"{WEB}:80", now)
        assert (answer.kind, cluster.memory.family) == (kind, "A")
    assert cluster.look_up(f"{WEB}:80", 21.0).kind == "nobody"
    assert found(cluster.look_up(f"{WEB}:80", 22.0)) == ["::7:80"]


def test_both_families_empty_is_no_change_of_family() -> None:
    """Scaled to zero for a while: the clock of a change must not run meanwhile."""
    cluster = web(A=records("10.0.0.1"))
    cluster.look_up(f"{WEB}:80", 0)
    cluster.says = {V4: NODATA, V6: records("7")}
    cluster.look_up(f"{WEB}:80", 1)
    cluster.says = {}
    cluster.look_up(f"{WEB}:80", 5)
    cluster.says = {V4: NODATA, V6: records("7")}
    assert cluster.look_up(f"{WEB}:80", 12).kind == "nobody", "empty beside the other since now, not since 1"
    assert cluster.look_up(f"{WEB}:80", 22).kind == "records"


def test_of_two_empty_replies_the_one_that_says_the_name_exists_is_told() -> None:
    cluster = web(A=NODATA, AAAA=NXDOMAIN)
    assert cluster.look_up(f"{WEB}:80").why == "NODATA"
    cluster = web(A=NXDOMAIN, AAAA=records("7"))
    answer = cluster.look_up(f"{WEB}:80")
    assert (answer.why, cluster.asked) == ("NXDOMAIN", [V4]), "for a name never seen NXDOMAIN goes on to the next name"


# ---- SRV ---------------------------------------------------------------------------------------------------------

HTTP = f"_http._tcp.{WEB}"
NAMED = f"{WEB}:http"


def http(services: Reply, **says: Reply) -> Cluster:
    cluster = Cluster({f"SRV {HTTP}": services}, options=Options(hold_nx=HOLD))
    cluster.says |= {f"{kind.replace('_', ' ').strip()} {HTTP}": reply for kind, reply in says.items()}
    return cluster


def test_several_addresses_of_one_target_and_one_port_a_target() -> None:
    services = srv((8080, "twin."), (9191, "b."), glue={"twin.": ("10.0.0.1", "10.0.0.2"), "b.": ("10.0.0.3",)})
    answer = http(services).look_up(NAMED)
    assert found(answer) == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9191"]
    assert {port_of(key): facts.hostname for key, facts in answer.about.items()} == {8080: "twin.", 9191: "b."}


def test_glue_of_both_families_is_used_of_one_and_needs_no_question() -> None:
    """In a dual-stack headless Service each address has a target of its own."""
    services = srv((80, "v4."), (80, "v6."), glue={"v4.": ("10.0.0.1",), "v6.": ("7",)})
    cluster = http(services)
    assert found(cluster.look_up(NAMED)) == ["10.0.0.1:80"]
    assert len(cluster.asked) == 1
    cluster = http(srv((80, "both."), glue={"both.": ("10.0.0.1", "7")}))
    cluster.options = Options(family="6")
    assert found(cluster.look_up(NAMED)) == ["::7:80"]


def test_the_family_of_glue_changes_after_the_hold_too() -> None:
    cluster = http(srv((80, "a."), glue={"a.": ("10.0.0.1",)}))
    cluster.look_up(NAMED, 0)
    cluster.says[f"SRV {HTTP}"] = srv((80, "b."), glue={"b.": ("7",)})
    assert [cluster.look_up(NAMED, now).kind for now in (1.0, 10.9)] == ["nobody", "nobody"]
    assert found(cluster.look_up(NAMED, 11.0)) == ["::7:80"]


def test_pods_without_an_address_of_the_family_that_is_wanted_are_nobody() -> None:
    cluster = http(srv((80, "b."), glue={"b.": ("7",)}))
    cluster.options = Options(family="4")
    answer = cluster.look_up(NAMED)
    assert (answer.kind, answer.why) == ("nobody", "NODATA")


def test_truncated_with_one_port_the_addresses_come_by_the_port_s_name_of_either_family() -> None:
    cluster = http(srv((8080, "a."), truncated=True), A=NODATA, AAAA=records("7", "8", ttl=2.0))
    answer = cluster.look_up(NAMED)
    assert (found(answer), answer.ttl) == (["::7:8080", "::8:8080"], 2.0)
    assert cluster.asked == [f"SRV {HTTP}", f"A {HTTP}", f"AAAA {HTTP}"]
    cluster.look_up(NAMED)
    assert cluster.asked == [f"SRV {HTTP}", f"AAAA {HTTP}"]


def test_targets_without_glue_are_all_asked_for_or_the_set_is_none() -> None:
    count = 2 * SRV_TARGETS + 5
    services = srv(*((8080 + i % 2, f"t{i}.") for i in range(count)), glue={"t0.": ("10.0.9.9",)})
    cluster = http(services)
    cluster.says |= {f"A t{i}.": records(f"10.0.{i // 200}.{i % 200}", ttl=3.0) for i in range(1, count)}
    answer = cluster.look_up(NAMED)
    assert (len(answer.keys), answer.ttl) == (count, 3.0)
    assert cluster.rounds == [1, SRV_TARGETS, SRV_TARGETS, 4]
    cluster.says["A t77."] = Reply("SERVFAIL")
    assert cluster.look_up(NAMED).kind == "no_news", "one of them is missing"
    cluster.says["A t77."] = Reply("NOERROR", truncated=True)
    assert cluster.look_up(NAMED).kind == "no_news"
    cluster.says["A t77."] = NXDOMAIN
    assert len(cluster.look_up(NAMED).keys) == count - 1, "it has gone since"
    too_many = srv(*((8080 + i % 2, f"t{i}.") for i in range(SRV_TARGETS_MAX + 1)))
    assert http(too_many).look_up(NAMED).why == f"SRV lists {SRV_TARGETS_MAX + 1} pods without their addresses"


def test_targets_without_glue_are_asked_for_in_the_family_that_the_others_turn_out_to_have() -> None:
    cluster = http(srv((80, "a."), (81, "b."), glue={"a.": ("7",)}))
    cluster.says |= {"A b.": NODATA, "AAAA b.": records("8")}
    assert found(cluster.look_up(NAMED)) == ["::7:80", "::8:81"], "a set lacks nobody"


def test_srv_on_the_bare_name_teaches_the_port_when_there_is_only_one() -> None:
    cluster = Cluster({f"SRV {WEB}": srv((8080, "a."), (8080, "b."), glue={"a.": ("10.0.0.1",), "b.": ("10.0.0.2",)})})
    assert found(cluster.look_up(WEB)) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    cluster.says[f"SRV {WEB}"] = srv((8080, "a."), (9090, "a."), glue={"a.": ("10.0.0.1",)})
    answer = cluster.look_up(WEB)
    assert (answer.kind, answer.why) == ("nobody", "several ports (8080, 9090): name one")
    cluster.says[f"SRV {WEB}"] = NODATA
    assert cluster.look_up(WEB).why == "NODATA"


def test_a_service_that_says_it_is_not_offered_is_nobody() -> None:
    for services in (srv((0, ".")), srv((80, ".")), srv((0, "a."), glue={"a.": ("10.0.0.1",)})):
        answer = http(services).look_up(NAMED)
        assert (answer.kind, answer.why) == ("nobody", "NODATA")


def test_the_search_list_is_walked_for_srv_with_the_port_s_name_before_it() -> None:
    name = "_http._tcp.web.shop.svc.cluster.local."
    cluster = Cluster({f"SRV {name}": srv((8080, "a."), glue={"a.": ("10.0.0.1",)})})
    assert found(cluster.look_up("web.shop.svc:http")) == ["10.0.0.1:8080"]
    assert cluster.asked == [
        "SRV _http._tcp.web.shop.svc.shop.svc.cluster.local.",
        "SRV _http._tcp.web.shop.svc.svc.cluster.local.",
        f"SRV {name}",
    ]
    assert cluster.memory.pinned == "web.shop.svc.cluster.local."
