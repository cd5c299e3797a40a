"""What holds for the command as a whole: exit codes, streams, colours, and the extra that it needs."""

import asyncio
import subprocess
import sys

import pytest

import headlessconn
from headlessconn.testing import EmbeddedCluster
from tests.cli import command

ESCAPE = "\x1b["


async def test_the_version_is_data() -> None:
    assert await command.headlessconn("--version") == (0, f"headlessconn {headlessconn.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resolve", "orders.shop:70000"), "the port 70000 is not between 1 and 65535"),
        (("resolve", "http://orders.shop"), "a right one looks like"),
        (("resolve", "orders.shop:80", "--nameserver", "dns.example"), "'dns.example' is not an address"),
        (("resolve", "orders.shop:80", "--family", "5"), "--family"),
        (("resolve", "orders.shop:80", "--ndots", "-1"), "--ndots"),
        (("resolve",), "Missing argument"),
        (("rezolve", "orders.shop:80"), "rezolve"),
        (("demo", "--seconds", "10", "--ttl", "5"), "give --seconds 19 or more"),
        (("demo", "--rate", "0"), "--rate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_cannot_be_meant_is_a_usage_error(arguments: tuple[str, ...], said: str) -> None:
    run = await command.headlessconn(*arguments)
    assert run.code == 2
    assert said in run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr


async def test_colours_are_for_terminals_and_no_color_is_respected() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=1)
        asked = ("resolve", f"{orders.fqdn}:http", "--nameserver", cluster.nameserver)
        piped, seen, plain, dumb = await asyncio.gather(
            command.headlessconn(*asked),
            command.on_a_terminal(*asked),
            command.on_a_terminal(*asked, env={"NO_COLOR": "1"}),
            command.on_a_terminal(*asked, env={"TERM": "dumb"}),
        )
        assert {run.code for run in (piped, seen, plain, dumb)} == {0}
        address = orders.pods[0].address
        assert all(address in run.stdout for run in (piped, seen, plain, dumb))
        assert ESCAPE not in piped.stdout
        assert f"{ESCAPE}36m{address}" in seen.stdout
        assert f"{ESCAPE}36m" not in plain.stdout
        assert ESCAPE not in dumb.stdout


def test_without_the_extra_it_says_what_is_needed() -> None:
    program = (
        "import sys; sys.modules['typer'] = None\n"
        "from headlessconn.cli import main\n"
        "sys.argv = ['headlessconn', 'resolve', 'static:///10.0.0.1:80']\n"
        "sys.exit(main())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=command.SURROUNDINGS
    )
    assert run.returncode == 1
    assert "needs typer" in run.stderr
    assert "pip install 'headlessconn[cli]'" in run.stderr
    assert "Traceback" not in run.stderr
