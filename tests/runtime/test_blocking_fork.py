"""A blocking client in forked children, and at the end of an interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.threaded_shop import threaded_shop

ROOT = Path(__file__).parent.parent.parent

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# From Python 3.12 on every fork of a process with threads warns, rightly: what it warns of is what is tried here.
WARNINGS = ["-W", "error", "-W", "ignore:.*multi-threaded.*fork:DeprecationWarning"]

FORK = """
import json, os, sys, threading
from headlessconn.sync import Client
from headlessconn.errors import ClosedError

target, settings = json.loads(sys.argv[1])
built, used, closed = Client(**settings), Client(**settings), Client(**settings)
services = {name: client.service(target) for name, client in (("built", built), ("used", used))}
services["used"].ready(3, timeout=30)
closed.service(target).ready(3, timeout=30)
closed.close()
open_pick = services["used"].pick()
open_pick.__enter__()
stop = threading.Event()

def busy():  # so that forks come in the middle of calls, with the locks held
    while not stop.is_set():
        with services["used"].pick():
            pass

workers = [threading.Thread(target=busy) for _ in range(2)]
for worker in workers:
    worker.start()

def inodes():
    found = set()
    for number in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found

def child(inherited):
    said = {"sockets": len(inodes() & inherited), "threads": threading.active_count()}
    open_pick.__exit__(None, None, None)
    for name, service in services.items():
        service.ready(3, timeout=30)
        picks = []
        for _ in range(12):
            with service.pick() as pick:
                picks.append(pick.port)
        said[name] = picks
        said[name + " loads"] = sum(member.in_flight for member in service.snapshot.members)
    try:
        closed.service(target).ready()
    except ClosedError:
        said["closed"] = True
    built.close()
    used.close()
    said["left"] = threading.active_count(), len(inodes() & inherited)
    return said

pids, pipes = [], []
for _ in range(4):
    reading, writing = os.pipe()
    inherited = inodes()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(child(inherited)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    pids.append(pid)
    pipes.append(reading)
children = []
for pid, reading in zip(pids, pipes):
    with open(reading, "rb") as pipe:
        children.append(json.loads(pipe.read() or b"{}"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
for worker in workers:
    worker.join()
open_pick.__exit__(None, None, None)
services["used"].ready(3)
loads = sum(member.in_flight for member in services["used"].snapshot.members)
used.close()
built.close()
print(json.dumps({"children": children, "loads": loads}))
"""


def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *WARNINGS, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@FORKS
def test_after_a_fork_a_client_starts_afresh() -> None:
    """Built before or used before: in a child it has sockets, a thread and dice of its own. One that was closed stays
    closed. The parent does not notice."""
    with threaded_shop() as world:
        settings = {**world.cluster.resolver, "refresh_min": 0.05, "refresh_max": 0.1}
        ended = run(FORK, json.dumps([world.orders.target, settings]))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    said = json.loads(ended.stdout)
    assert said["loads"] == 0
    assert len(said["children"]) == 4
    for child in said["children"]:
        assert child["sockets"] == 0, "the parent's are closed here"
        assert child["threads"] == 1
        assert len(child["built"]) == len(child["used"]) == 12
        assert child["built loads"] == child["used loads"] == 0, "a pick of the parent's is not counted here"
        assert child["closed"]
        assert child["left"] == [1, 0]


DICE = """
import json, os
from headlessconn.sync import Client
client = Client(policy="least_request")
service = client.service("static:///" + ",".join(f"10.0.0.{n}:80" for n in range(1, 101)))
service.ready(100)

def picks():
    found = []
    for _ in range(8):
        with service.pick() as pick:
            found.append(pick.host)
    return found

said = []
for _ in range(3):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, json.dumps(picks()).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    said.append(json.loads(os.read(reading, 65536)))
print(json.dumps([*said, picks()]))
client.close()
"""


@FORKS
def test_each_child_throws_dice_of_its_own() -> None:
    ended = run(DICE)
    assert ended.returncode == 0, ended.stderr
    assert len({tuple(picks) for picks in json.loads(ended.stdout)}) == 4


EXIT = """
import sys, threading
from headlessconn.sync import Client
client = Client(nameservers=["127.0.0.1:1"], wait_for_endpoints=3600.0, max_in_flight=1)
service = client.service("orders.shop.svc.cluster.local.:80")

def waits():
    with service.pick():
        pass

threading.Thread(target=waits, daemon=True).start()
while not service.snapshot.waiting:
    pass
print("ends")
"""


def test_an_interpreter_ends_though_a_client_was_never_closed_and_callers_wait() -> None:
    ended = run(EXIT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")
