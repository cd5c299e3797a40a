"""The balancer's own rules, in virtual time: half a minute takes a few milliseconds."""

from headlessconn.options import Options
from headlessconn.testing.sim import add, crash, dns, simulate


def test_a_new_pod_gets_its_fair_share_soon() -> None:
    run = simulate(pods="ab", rate=200, seconds=30, script=[(10.0, add("c"))])
    assert run.received("c", until=15.1) > 0  # it came at 10 s, and the TTL is 5
    assert run.share("c", 16.0, 30.0) > 0.9


def test_a_crashed_pod_is_left_alone_although_dns_lists_it() -> None:
    run = simulate(pods="abc", rate=100, seconds=30, script=[(12.0, crash("b"))])
    assert run.received("b", since=12.0) == 0
    assert run == run.again()  # the same seed is the same history


def test_our_settings_bear_a_minute_of_silent_dns() -> None:
    run = simulate(
        pods="abc",
        rate=50,
        seconds=90,
        script=[(10.0, dns("silent")), (70.0, dns(""))],
        options=Options(refresh_max=2.0),
    )
    assert run.failed == 0
