"""The demo shows what it claims: nothing of it is scripted but the events."""

import asyncio
import json
import signal
from typing import NamedTuple

import pytest

from headlessconn.cli.demo import Plan
from tests.cli import command

pytestmark = pytest.mark.slow


class Runs(NamedTuple):
    busy: command.Run
    rested: command.Run
    shown: command.Run


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All at once, since they mostly wait. The gap is that long because aiohttp closes connections idle for 15 s."""

    async def run() -> Runs:
        short = ("--ttl", "1", "--rate", "100")
        return Runs(
            *await asyncio.gather(
                command.headlessconn("demo", "--json", "--seconds", "12", *short),
                command.headlessconn("demo", "--json", "--seconds", "7", "--gap", "16", *short),
                command.on_a_terminal("demo", "--seconds", "10", *short),
            )
        )

    return asyncio.run(run())


@pytest.mark.parametrize("name", ["busy", "rested"])
def test_json_is_one_object_and_headlessconn_gets_it_right(runs: Runs, name: str) -> None:
    run: command.Run = getattr(runs, name)
    assert run.code == 0, run.stderr
    result = json.loads(run.stdout)
    assert set(result) == {"ttl", "plain", "headlessconn"}
    assert result["ttl"] == 1
    for client in ("plain", "headlessconn"):
        assert set(result[client]) == {"first_request_at_new_pod_s", "share_of_new_pod", "failed", "requests"}
        assert result[client]["requests"] > 100
    assert result["headlessconn"]["first_request_at_new_pod_s"] is not None
    assert result["headlessconn"]["share_of_new_pod"] > 0.1
    assert result["headlessconn"]["failed"] == 0


def test_plain_aiohttp_misses_the_new_pod_unless_its_connections_rest(runs: Runs) -> None:
    busy, rested = (json.loads(run.stdout)["plain"] for run in (runs.busy, runs.rested))
    assert busy["first_request_at_new_pod_s"] is None
    assert busy["share_of_new_pod"] == 0
    assert rested["first_request_at_new_pod_s"] >= 16
    assert rested["share_of_new_pod"] > 0


def test_what_happens_is_told_on_stderr(runs: Runs) -> None:
    for event in ("scale-out 2 → 3", "rolling restart", "crashes", "was started again", "scale-in 3 → 2"):
        assert event in runs.busy.stderr
    assert "orders-2 0 | " in runs.busy.stderr
    assert "the load pauses for 16 s" in runs.rested.stderr
    assert "Traceback" not in runs.busy.stderr + runs.rested.stderr


def test_on_a_terminal_it_draws_and_sums_up(runs: Runs) -> None:
    assert runs.shown.code == 0, runs.shown.stderr
    for seen in ("█", "orders-2", "terminating", "first request at the new pod", "\x1b["):
        assert seen in runs.shown.stdout
    assert "--gap 20" in runs.shown.stderr
    assert "orders-0" not in runs.shown.stderr  # the lines are for those who have no screen


async def test_ctrl_c_closes_everything_and_exits_with_130() -> None:
    process = await asyncio.create_subprocess_exec(
        *(*command.PROGRAM, "demo", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=command.SURROUNDINGS | {"PYTHONASYNCIODEBUG": "1"},  # whatever is left open would be told on stderr
        # A shell that runs the tests in the background ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = b""
    while b"orders-1" not in said:
        line = await process.stderr.readline()
        assert line, said.decode()
        said += line
    process.send_signal(signal.SIGINT)
    stdout, rest = await process.communicate()
    assert process.returncode == 130
    assert stdout == b""
    for word in (b"Traceback", b"unclosed", b"Unclosed", b"never retrieved", b"destroyed"):
        assert word not in rest, rest.decode()


@pytest.mark.parametrize("seconds", [5.0, 40.0, 3600.0])
def test_the_acts_fill_the_time(seconds: float) -> None:
    plan = Plan(seconds=seconds)
    acts = (plan.steady, plan.scaled_out, plan.rolling, plan.crashed, plan.scaled_in)
    assert sum(acts) == pytest.approx(seconds)
    assert 2 * plan.window <= plan.scaled_out + 1e-9


def test_the_shortest_plan_leaves_a_new_pod_time_to_be_noticed() -> None:
    assert Plan(ttl=1).shortest == 7
    assert Plan(ttl=5).shortest == Plan(ttl=30).shortest == 19  # headlessconn asks every 5 s, whatever the TTL
    assert Plan().shortest < Plan().seconds < 60
