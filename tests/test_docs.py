"""The manual builds without a warning, tells of everything that is public, and its listings are files that run."""

import ast
import asyncio
import contextlib
import html
import importlib
import json
import os
import re
import ssl
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from functools import cached_property, partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from yarl import URL

import headlessconn
from headlessconn import errors, sync
from headlessconn.adapters import aiohttp as adapter
from headlessconn.core.member import MOVES, State
from headlessconn.options import Options
from headlessconn.testing import EmbeddedCluster, Pod, sim
from headlessconn.testing.zone import Listed, Port
from tests.real import loopback, mariadb
from tests.real.mysql_cluster import on_loopback
from tests.tiers import require

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
BUILDERS = ("sphinx", "myst_parser", "furo")


# --- The manual, built -------------------------------------------------------------------------------------------


class Manual:
    """The built pages, by name without ending."""

    def __init__(self, folder: Path) -> None:
        self.pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}

    def text(self, page: str) -> str:
        """What a reader sees."""
        return html.unescape(re.sub(r"<[^>]+>", "", self.pages[page]))

    @cached_property
    def anchors(self) -> set[str]:
        return {found for page in self.pages.values() for found in re.findall(r'id="(headlessconn[^"]*)"', page)}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Manual:
    missing = [name for name in BUILDERS if find_spec(name) is None]
    require("docs", not missing, f"no {', '.join(missing)} here (make docs installs what the manual is built with)")
    built, trees = tmp_path_factory.mktemp("manual"), tmp_path_factory.mktemp("trees")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(trees), str(DOCS), str(built)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Manual(built)


def test_every_option_is_explained(manual: Manual) -> None:
    for option in fields(Options):
        assert f"headlessconn.Options.{option.name}" in manual.anchors
        assert repr(option.default) in manual.text("options")


def test_every_error_is_explained(manual: Manual) -> None:
    classes = [error for error in vars(errors).values() if isinstance(error, type)]
    found = [error for error in classes if error.__module__ == errors.__name__]
    assert found
    for error in found:
        assert f"headlessconn.errors.{error.__name__}" in manual.anchors
        assert error.__name__ in manual.text("errors")


def test_every_public_name_is_there(manual: Manual) -> None:
    for name in headlessconn.__all__:
        assert {f"headlessconn.{name}", f"headlessconn.errors.{name}"} & manual.anchors, name
    for name in adapter.__all__:
        assert f"headlessconn.adapters.aiohttp.{name}" in manual.anchors
    for name in set(sync.__all__) - {"NoEndpoints", "PoolSnapshot"}:  # which are those of the other API
        assert f"headlessconn.sync.{name}" in manual.anchors
    for name in headlessconn.testing.__all__:
        assert f"headlessconn.testing.{name}" in manual.anchors
    for name in set(sim.__all__) - {"Event", "SimClient"}:  # what the others give or take
        homes = {f"headlessconn.testing.sim.{name}", f"headlessconn.testing.sim.events.{name}"}
        assert homes & manual.anchors, name


def test_every_public_name_of_an_adapter_is_there(manual: Manual) -> None:
    for path in sorted((ROOT / "headlessconn" / "adapters").glob("[!_]*.py")):
        lists = re.findall(r"^__all__ = (\[.*?\])", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for name in ast.literal_eval(lists[0]):
            assert f"headlessconn.adapters.{path.stem}.{name}" in manual.anchors


def test_each_client_under_each_fault_is_drawn(manual: Manual) -> None:
    rows = json.loads((DOCS / "faults.json").read_text(encoding="utf-8"))
    trials = {(row["rate"], row["scenario"], row["client"]) for row in rows}
    failed = {(row["rate"], row["scenario"], row["client"]) for row in rows if row["failed"] + row["posts_failed"]}
    plots = re.findall(r'<svg class="faults-plot".*?</svg>', manual.pages["faults"], re.DOTALL)
    assert len(plots) == len({row["rate"] for row in rows})
    assert sum(plot.count("<rect") for plot in plots) == len(trials)
    assert sum(plot.count(" failed</text>") for plot in plots) == len(failed)


def test_every_command_is_there_with_its_options(manual: Manual) -> None:
    typer = pytest.importorskip("typer.main")
    from headlessconn.cli.app import app

    page = manual.text("command-line")
    commands = typer.get_command(app).commands
    assert commands
    for name, command in commands.items():
        assert f"$ headlessconn {name} --help" in page
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in page, f"{name} {parameter.opts[0]}"


def test_every_state_and_move_is_drawn_and_listed(manual: Manual) -> None:
    page = manual.pages["life-of-an-endpoint"]
    diagram, _, table = page[page.index('<svg class="diagram"') :].partition("</svg>")
    for state in State:
        assert f">{state.name}<" in diagram
        assert f">{state.name}<" in table
    for _, cause in MOVES:
        assert re.search(rf"\b{cause}\b", diagram)
        assert f"<em>{cause}</em>" in table


def test_what_dns_answers_do_is_as_the_design_has_it(manual: Manual) -> None:
    """The rows are found out by running the engine. These are the promises of the page's first paragraphs."""
    page = manual.pages["dns-answers"]
    cells = [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL)]
    rows = {re.sub(r"<[^>]+>|\n", "", row[0]): [html.unescape(cell) for cell in row[1:]] for row in cells if row}
    for says in ("SERVFAIL from every server", "REFUSED from every server", "truncated even over TCP"):
        meaning, at_once, later, _ = rows[says]
        assert "no news" in meaning
        assert "3 pods" in at_once
        assert "stays so" in later
    for says in ("NXDOMAIN", "NODATA for A and AAAA"):
        meaning, at_once, later, again = rows[says]
        assert "nobody" in meaning
        assert "3 pods, held for 10\N{NO-BREAK SPACE}s" in at_once
        assert "empty" in later
        assert "1\N{NO-BREAK SPACE}s" in again


def test_the_manual_fetches_nothing(manual: Manual) -> None:
    for name, page in manual.pages.items():
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page):
            assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), f"{name}: {tag}"


# --- The listings ------------------------------------------------------------------------------------------------


def test_every_listing_is_a_file_that_is_run_here() -> None:
    shown = {
        (DOCS / found).resolve()
        for page in DOCS.glob("*.md")
        for found in re.findall(r"\{literalinclude\} (\S+)", page.read_text(encoding="utf-8"))
    }
    files = {path for path in (*EXAMPLES.iterdir(), *(ROOT / "examples").iterdir()) if path.is_file()}
    assert shown == files
    here = Path(__file__).read_text(encoding="utf-8")
    run_here = {path for path in files if path.parent == EXAMPLES and not path.name.startswith("test_")}
    run_here.remove(EXAMPLES / "orders_client.py")  # by its tests
    assert not [path.name for path in run_here if f'"{path.stem}' not in here]


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"docs_examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}


def test_the_tutorial_prints_what_it_says() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "tutorial.py"],
        cwd=EXAMPLES,
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    two, three, explained, *_, one = ran.stdout.splitlines()
    for line, begins, names in (
        (two, "two pods:", {"orders-0", "orders-1"}),
        (three, "three pods:", {"orders-0", "orders-1", "orders-2"}),
        (one, "one pod:", {"orders-0"}),
    ):
        assert line.startswith(begins)
        assert ast.literal_eval(line.partition(":")[2].strip()).keys() == names
    assert "3 endpoints: 3 ready" in explained


def test_the_example_tests_pass_in_a_project_without_other_plugins() -> None:
    tests = [path.name for path in sorted(EXAMPLES.glob("test_*.py"))]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "headlessconn.testing.plugin", "-p", "no:cacheprovider", "-q", *tests],
        cwd=EXAMPLES,
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def test_the_connector_as_it_is_with_settings_and_with_targets() -> None:
    connector = load("connector")
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=1)
        pod = orders.pods[0]
        assert pod.name in await connector.simply(pod.url)
        assert pod.name in await connector.with_targets("http://orders/", f"static:///{pod.address}:{pod.port}")
        if not cluster.one_address:  # else a URL cannot name the pods' ports
            assert pod.name in await connector.with_settings(orders.url, **cluster.resolver)


async def test_any_protocol_by_pick_and_by_connection() -> None:
    any_protocol = load("any_protocol")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"PING\r\n":
            writer.write(b"+PONG\r\n")
        await reader.read()  # until the client hangs up
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, EmbeddedCluster() as cluster, headlessconn.Client(None, **cluster.resolver) as client:
        cluster.zone.headless("cache.shop", [Listed("127.0.0.1", (Port("redis", port),))])
        cache = client.service("cache.shop:redis")
        assert await any_protocol.ping(cache) == "+PONG"
        assert await any_protocol.ping_simply(cache) == "+PONG"


async def test_a_pool_of_a_protocol_of_ones_own() -> None:
    pool = load("pool")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            asked.append(line.decode().strip())
            writer.write({"GET": b"hello\r\n", "PING": b"+PONG\r\n"}.get(asked[-1].split()[0], b"+OK\r\n"))
        writer.close()

    asked: list[str] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = f"static:///127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, headlessconn.Client() as client, pool.pool_of(client.service(target), check_after=0) as made:
        async with made.acquire() as connection:
            assert await connection.ask("GET", "greeting") == "hello"
        while made.snapshot.resetting:  # noqa: ASYNC110  a reset's end is told to nobody
            await asyncio.sleep(0)
        assert await pool.by_hand(made) == "+PONG"
        await made.aclose()
        assert asked == ["AUTH secret", "GET greeting", "RESET", "PING", "PING", "RESET"]


async def test_sqlalchemy_and_the_read_write_split_on_real_servers() -> None:
    require("mariadb", not (mariadb.missing() or loopback.missing()), mariadb.missing() or loopback.missing())
    engine, split = load("sqlalchemy_engine"), load("read_write")
    with on_loopback(replicas=1) as mysql:
        tls, login = ssl.create_default_context(cafile=str(mysql.ca)), mysql.login
        url = f"mysql+{{}}://{login['user']}:{login['password']}@/{login['database']}"
        assert await engine.on_a_loop(url.format("aiomysql"), mysql.read, tls, **mysql.resolver) == "mysql-1"
        blocking = partial(engine.in_threads, url.format("pymysql"), mysql.read, tls, **mysql.resolver)
        assert await asyncio.to_thread(blocking) == "mysql-1"

        def make_engine() -> AsyncEngine:
            return create_async_engine(url.format("aiomysql"), connect_args={"ssl": tls})

        options = Options(**mysql.resolver)
        async with split.database(make_engine, primary=mysql.write, replicas=mysql.read, options=options) as db:
            token = await split.again(lambda: split.order(db, "the first"))
            assert await split.orders(db) == await split.orders(db, token) == await split.with_the_orm(db) == 1


async def test_pools_of_mysql_drivers_on_real_servers() -> None:
    require("mariadb", not (mariadb.missing() or loopback.missing()), mariadb.missing() or loopback.missing())
    pools = load("mysql_pools")
    with on_loopback(replicas=1) as mysql:
        tls = ssl.create_default_context(cafile=str(mysql.ca))
        login = {name: mysql.login[name] for name in ("user", "password")}
        host, _, port = mysql.read.partition(":")
        options = Options(**mysql.resolver)
        assert await pools.one_service(host, int(port), options=options, ssl=tls, **login) == "mysql-1"
        both = f"static:///{mysql.primary.address}:{port},{mysql.replicas[0].address}:{port}"
        pods = await pools.two_servers(mysql.write, both, resolver=mysql.resolver, **login)
        assert set(pods) <= {"mysql-0", "mysql-1"}
        mysql.replicas[0].catch_up(mysql.primary)
        counted = await pools.primary_and_read(mysql.write, mysql.read, options=options, ssl=tls, **login)
        assert counted in (1, 2)  # the replica may lag by the last one
        blocking = partial(pools.in_threads, mysql.read, tls, resolver=mysql.resolver, **login)
        assert await asyncio.to_thread(blocking) == "mysql-1"
        dbutils = partial(pools.with_dbutils, mysql.read, resolver=mysql.resolver, **login)
        assert await asyncio.to_thread(dbutils) == "mysql-1"


async def test_threads_share_a_service_and_a_pool() -> None:
    blocking = load("blocking")

    def use(target: str, resolver: dict[str, Any], paths: list[str]) -> list[bytes]:
        with sync.Client(**resolver) as client:
            service = client.service(target)
            service.ready(3)
            with service.pool(open=blocking.connect, max_size=3) as pool:
                return [*blocking.get_all(service, paths), *(blocking.get_kept(pool, path) for path in paths)]

    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=3)
        paths = [f"/v1/orders/{number}" for number in range(12)]
        assert all(await asyncio.to_thread(use, orders.target, cluster.resolver, paths))
        served = Counter(request.path for pod in orders.pods for request in pod.requests)
        assert {path: served[path] for path in paths} == dict.fromkeys(paths, 2)
        assert all(pod.requests for pod in orders.pods)


async def test_retries_of_an_exchange_and_over_http() -> None:
    retries = load("retries")
    heard: list[bytes] = []
    replies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.write(replies.pop(0) if replies else b"+PONG\r\n")  # b"": it hangs up
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in range(2)]
        for server in servers:
            await stack.enter_async_context(server)
        places = ",".join(f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
        client = await stack.enter_async_context(headlessconn.Client())
        cache = client.service(f"static:///{places}")
        assert await retries.once(cache) == "+PONG"
        replies[:] = [b"-BUSY\r\n", b""]
        assert await retries.until_answered(cache) == "+PONG"
        assert heard == [b"PING\r\n"] * 4
        replies[:] = [b"-BUSY\r\n"]
        with pytest.raises(retries.Busy):
            await retries.once(cache)
        assert await retries.soon(cache) == "+PONG"
    async with EmbeddedCluster() as cluster, headlessconn.Client(None, **cluster.resolver) as client:
        orders = await cluster.service("orders", pods=2)
        targets = {} if orders.port else {"orders.shop": orders.target}
        async with retries.hedging_session(client, targets=targets) as session:
            assert await retries.place_order(session, f"{orders.url}/orders", "4711") == 200
    assert retries.kind("GET", URL("http://orders/search?pages=9")) == "GET search 9"
    assert retries.kind("GET", URL("http://orders/orders/42")) == "GET orders"


async def test_watching_says_who_came_and_how_all_are(capsys: pytest.CaptureFixture[str]) -> None:
    watching = load("watching")
    async with EmbeddedCluster(ttl=1) as cluster, headlessconn.Client(None, **cluster.resolver) as client:
        orders = await cluster.service("orders", pods=1)
        service = client.service(orders.target)
        following = asyncio.create_task(watching.follow(service))
        await service.ready()
        await orders.add()
        await service.ready(min_endpoints=2)
        async with service.pick() as pick, aiohttp.ClientSession() as session:
            async with session.get(f"http://{pick.host}:{pick.port}/") as response:
                assert response.status == 200
            gauges = list(watching.gauges(service))
        await client.aclose()
        await following
    lines = capsys.readouterr().out.splitlines()
    assert Counter(line.partition(": ")[2] for line in lines)["unknown -> ready (listed)"] == 2
    assert f'headlessconn_ready{{target="{orders.target}"}} 2' in gauges
    for line in gauges:
        assert re.fullmatch(r'[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [0-9.]+', line), line


async def asked_for(pod: Pod, path: str) -> None:
    """Wait until a pod has been asked for this."""
    await pod.until(lambda: path in {request.path for request in pod.requests})


async def test_pods_are_checked_and_asked_who_they_are() -> None:
    health = load("health")

    async def whoami(request: web.BaseRequest) -> web.Response:
        return web.Response(headers={"X-Service": "orders.shop" if request.path == "/whoami" else ""})

    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=2, handler=whoami)
        async with health.verifying(**cluster.resolver) as client:
            service = client.service(orders.target)
            await service.ready(2)
            for pod in orders.pods:
                await asked_for(pod, "/whoami")
            assert health.unwell(service) == []

            strangers = await cluster.service("billing", pods=1)
            other = client.service(strangers.target)
            changes = other.changes()
            while not health.unwell(other):
                await anext(changes)
            await changes.aclose()
            [line] = health.unwell(other)
            assert line.endswith("ejected: verify: not the pod that is meant")

    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=2)
        async with health.checking(0.1, **cluster.resolver) as client:
            await client.service(orders.target).ready(2)
            for pod in orders.pods:
                await asked_for(pod, "/healthz")


def test_the_manifest_selects_its_pods_and_is_headless() -> None:
    manifest = EXAMPLES / "orders.yaml"
    require("docs", find_spec("yaml"), "no yaml here (make docs installs what the manual is built with)")
    service, deployment = importlib.import_module("yaml").safe_load_all(manifest.read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (published,), (container,) = service["spec"]["ports"], pod["spec"]["containers"]
    assert published["port"] == published["targetPort"] == container["ports"][0]["containerPort"]
    asleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asleep < pod["spec"]["terminationGracePeriodSeconds"]
