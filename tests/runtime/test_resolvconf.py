"""What resolv.conf says, what options say instead, and what happens when the file changes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headlessconn._runtime.resolvconf import ResolvConf, Server
from headlessconn.errors import OptionError
from headlessconn.options import Options
from tests.runtime.scripted_dns import Scripted, addresses, reply, source

POD = """\
search shop.svc.cluster.local svc.cluster.local cluster.local corp.example
nameserver 10.96.0.10
options ndots:5
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


def read(conf: Path, **options: object) -> ResolvConf:
    return ResolvConf(Options.of(None, {"resolv_conf": str(conf)} | options))


def replaced(conf: Path, text: str) -> None:
    """As kubelet and editors do: another file, renamed over it."""
    new = conf.with_suffix(".new")
    new.write_text(text)
    new.rename(conf)


def rewritten(conf: Path, text: str) -> None:
    """In place, the same inode. The stamp is set apart, for file systems whose clock is coarse."""
    before = conf.stat().st_mtime_ns
    conf.write_text(text)
    os.utime(conf, ns=(before + 1, before + 1))


# ---- what it says ------------------------------------------------------------------------------------------------


def test_the_file_of_a_pod(conf: Path) -> None:
    conf.write_text(POD)
    setting = read(conf).setting()
    assert setting.servers == (Server("10.96.0.10", 53),)
    domains = setting.search.domains
    assert domains == ("shop.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", "corp.example.")
    assert (setting.search.ndots, setting.search.zone, setting.search.in_cluster) == (5, "cluster.local.", True)


def test_the_zone_is_that_of_the_entry_that_starts_with_svc(conf: Path) -> None:
    conf.write_text("search shop.svc.k8s.Example svc.k8s.Example k8s.Example\nnameserver 10.0.0.1\n")
    assert read(conf).setting().search.zone == "k8s.example."
    assert read(conf, cluster_zone="other.zone").setting().search.zone == "other.zone."


def test_outside_of_a_cluster(conf: Path) -> None:
    conf.write_text("search corp.example\nnameserver 192.0.2.1\n")
    search = read(conf).setting().search
    assert (search.zone, search.in_cluster, search.ndots) == ("cluster.local.", False, 1)


def test_options_come_before_the_file_each_for_itself(conf: Path) -> None:
    conf.write_text(POD)
    setting = read(conf, nameservers=("127.0.0.1:5353", "[fd00::a]:53")).setting()
    assert setting.servers == (Server("127.0.0.1", 5353), Server("fd00::a", 53))
    assert setting.search.ndots == 5
    setting = read(conf, search=("web.svc.cluster.local",)).setting()
    assert setting.servers == (Server("10.96.0.10"),)
    assert setting.search.domains == ("web.svc.cluster.local.",)
    assert read(conf, ndots=2).setting().search.ndots == 2


def test_with_everything_in_options_the_file_is_not_looked_at(tmp_path: Path) -> None:
    setting = read(tmp_path / "none", nameservers=("10.0.0.1",), search=(), ndots=1).setting()
    assert setting.servers == (Server("10.0.0.1"),)
    assert setting.search.domains == ()


def test_a_search_list_of_our_own_is_used_for_short_names(tmp_path: Path) -> None:
    """Where the file says no ndots: a pod's own is 5."""
    search = read(tmp_path / "none", nameservers=("10.0.0.1",), search=("shop.svc.cluster.local",)).setting().search
    assert search.ndots == 5
    assert search.candidates("orders.shop", False)[0] == "orders.shop.shop.svc.cluster.local."


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.96.0.10", "10.96.0.10", 53),
        ("127.0.0.1:5353", "127.0.0.1", 5353),
        ("fd00::a", "fd00::a", 53),
        ("[fd00::a]:5353", "fd00::a", 5353),
        ("[fd00::a]", "fd00::a", 53),
        ("fe80::1%eth0", "fe80::1%eth0", 53),
        ("[fe80::1%eth0]:53", "fe80::1%eth0", 53),
    ],
)
def test_how_a_server_may_be_written(text: str, address: str, port: int) -> None:
    server = Server.parse(text)
    assert server == Server(address, port)
    assert Server.parse(str(server)) == server


@pytest.mark.parametrize(
    "text",
    ["", "dns", "1.2.3", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:65536", "[fd00::a", "[::a]5", "[::a]:"],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(OptionError, match="nameservers"):
        read(Path("none"), nameservers=(text,))


def test_three_servers_at_most_and_scopes_are_kept(conf: Path) -> None:
    conf.write_text("".join(f"nameserver {a}\n" for a in ("fe80::1%eth0", "10.0.0.2", "fd00::3", "10.0.0.4")))
    servers = read(conf).setting().servers
    assert servers == (Server("fe80::1%eth0"), Server("10.0.0.2"), Server("fd00::3"))
    assert str(servers[0]) == "[fe80::1%eth0]:53"


# ---- when it is not as it should be ------------------------------------------------------------------------------


def test_without_a_file_the_machine_itself_is_asked(tmp_path: Path) -> None:
    setting = read(tmp_path / "none").setting()
    assert setting.servers == (Server("127.0.0.1"),)
    assert setting.search.domains == ()


def test_a_word_that_is_wrong_costs_no_other(conf: Path) -> None:
    conf.write_bytes(
        b"\xff\xfe\x00 noise\n"
        b"nameserver\nnameserver dns.example\nnameserver https://dns.example/\nnameserver 10.0.0.1 # the only one\n"
        b"search shop.svc.cluster.local a..b " + b"x" * 70 + b" svc.cluster.local\n"
        b"options ndots:many timeout:\xff ndots:4 unheard-of\n"
        b"; a comment\n# another\n"
    )
    setting = read(conf).setting()
    assert setting.servers == (Server("10.0.0.1"),)
    assert setting.search.domains == ("shop.svc.cluster.local.", "svc.cluster.local.")
    assert setting.search.ndots == 4


def test_the_last_search_rules_and_a_domain_stands_in_for_it(conf: Path) -> None:
    conf.write_text("domain one.example\nnameserver 10.0.0.1\n")
    assert read(conf).setting().search.domains == ("one.example.",)
    conf.write_text("search one.example\nsearch two.example\nnameserver 10.0.0.1\n")
    assert read(conf).setting().search.domains == ("two.example.",)


# ---- when it changes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [replaced, rewritten], ids=["renamed over it", "written in place"])
def test_it_is_read_again_when_it_changes(conf: Path, change: Callable[[Path, str], None]) -> None:
    conf.write_text(POD)
    known = read(conf)
    before = known.setting()
    assert known.setting() is before, "and only then"
    change(conf, POD.replace("10.96.0.10", "10.96.0.99"))
    assert known.setting().servers == (Server("10.96.0.99"),)


def test_a_replacement_of_the_same_length_and_time_is_another_file(conf: Path) -> None:
    conf.write_text(POD)
    known = read(conf)
    known.setting()
    stamp = conf.stat().st_mtime_ns
    new = conf.with_suffix(".new")
    new.write_text(POD.replace("10.96.0.10", "10.96.0.99"))
    os.utime(new, ns=(stamp, stamp))
    new.rename(conf)
    assert known.setting().servers == (Server("10.96.0.99"),)


def test_through_a_symbolic_link_that_is_turned(conf: Path) -> None:
    """As resolvconf(8), systemd-resolved and mounted ConfigMaps do."""
    one, two = conf.with_name("one"), conf.with_name("two")
    one.write_text(POD)
    two.write_text(POD.replace("ndots:5", "ndots:3"))
    conf.symlink_to(one)
    known = read(conf)
    assert known.setting().search.ndots == 5
    conf.unlink()
    conf.symlink_to(two)
    assert known.setting().search.ndots == 3


def test_what_was_known_stays_while_it_is_gone_or_half_written(conf: Path) -> None:
    conf.write_text(POD)
    known = read(conf)
    before = known.setting()
    conf.unlink()
    assert known.setting() == before
    conf.write_text("search shop.svc")
    assert known.setting() == before
    replaced(conf, POD.replace("ndots:5", "ndots:2"))
    assert known.setting().search.ndots == 2


def test_with_servers_of_our_own_a_file_without_any_still_says_how_to_search(conf: Path) -> None:
    conf.write_text("search one.example\n")
    known = read(conf, nameservers=("10.0.0.1",))
    assert known.setting().search.domains == ("one.example.",)
    replaced(conf, "search two.example\noptions ndots:3\n")
    assert known.setting().search.domains == ("two.example.",)
    assert known.setting().search.ndots == 3


async def test_the_next_look_up_searches_as_the_new_file_says(conf: Path) -> None:
    replaced(conf, "search one.example\noptions ndots:5\n")
    async with Scripted(lambda asked: [reply(asked.wire, addresses(asked.name))]) as server:
        looking = source("web:80", Options(nameservers=(server.nameserver,), resolv_conf=str(conf)))
        await looking.look_up()
        replaced(conf, "search two.example\noptions ndots:5\n")
        await looking.look_up()
        assert server.texts() == ["web.one.example. A udp", "web.two.example. A udp"]
