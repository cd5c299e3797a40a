"""The lab itself: its faults look to a client as they do in a cluster, and it takes away what it made, only that."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.real import ledger
from tests.real.lab import CHECKOUT, DNS, Lab, Pod, missing
from tests.real.ledger import LabError
from tests.tiers import require

pytestmark = pytest.mark.real

PORT = 8080


@pytest.fixture(autouse=True)
def _needs_a_network() -> None:
    require("real-network", not missing(), missing())


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("hclab") as lab:
        yield lab


@pytest.fixture
def pod(lab: Lab) -> Pod:
    command = [sys.executable, "-m", "tests.real.http_pod", "web", "--log", str(lab.folder / "received")]
    return lab.pod("web", command=command, port=PORT)


def get(connection: socket.socket) -> str:
    """What comes of a request on this connection: the answer's body, or what befell it."""
    try:
        connection.sendall(b"GET /whoami HTTP/1.1\r\n\r\n")
        answer = connection.recv(1000)
        return answer.rpartition(b"\r\n")[2].decode() if answer else "end of file"
    except OSError as error:
        return type(error).__name__


def dial(lab: Lab, pod: Pod) -> socket.socket:
    with lab.inside():
        return socket.create_connection((pod.address, PORT), timeout=2.0)


def dial_fails(lab: Lab, pod: Pod) -> str:
    with pytest.raises(OSError) as caught:
        dial(lab, pod).close()
    return caught.type.__name__


def test_a_pod_answers(lab: Lab, pod: Pod) -> None:
    with dial(lab, pod) as connection:
        assert get(connection) == "web"


def test_no_way_leads_out(lab: Lab, pod: Pod) -> None:
    """Asked of the routing tables, not tried: a try that got out would be traffic to a stranger's address."""
    for namespace in (pod.namespace, "hclab-client", "hclab-hub"):
        way = subprocess.run(["ip", "-n", namespace, "route", "get", "192.0.2.1"], check=False, capture_output=True)
        assert b"unreachable" in way.stderr, namespace


def test_names_are_answered_by_the_labs_dns(lab: Lab, pod: Pod) -> None:
    lab.dns.headless("web.shop", [(pod.address, PORT)])
    program = "import socket; print(socket.gethostbyname('web.shop'))"
    said = lab.client([sys.executable, "-c", program], stdout=subprocess.PIPE).communicate()[0]
    assert said.decode().strip() == pod.address
    lab.dns.trouble(rcode="SERVFAIL")
    program = "import socket; socket.gethostbyname('web.shop')"
    assert lab.client([sys.executable, "-c", program], stderr=subprocess.DEVNULL).wait() == 1
    assert {transport for _, _, _, transport, _ in lab.dns.queries()} == {"udp"}
    with lab.inside():
        socket.create_connection((DNS, 53), timeout=5.0).close()  # TCP too


def test_a_reset_refuses_new_connections_and_resets_old_ones(lab: Lab, pod: Pod) -> None:
    with dial(lab, pod) as old:
        pod.reset(PORT)
        assert get(old) == "ConnectionResetError"
    assert dial_fails(lab, pod) == "ConnectionRefusedError"
    pod.pass_all()
    with dial(lab, pod) as new:
        assert get(new) == "web"


@pytest.mark.parametrize("fault", ["black hole", "link down"])
def test_silence_for_new_connections_and_old_ones(lab: Lab, pod: Pod, fault: str) -> None:
    with dial(lab, pod) as old:
        pod.black_hole() if fault == "black hole" else pod.link_down()
        assert get(old) == "TimeoutError"
    assert dial_fails(lab, pod) == "TimeoutError"
    pod.pass_all() if fault == "black hole" else pod.link_up()
    with dial(lab, pod) as new:
        assert get(new) == "web"


def test_a_frozen_process_still_accepts_and_goes_on_when_thawed(lab: Lab, pod: Pod) -> None:
    pod.freeze()
    with dial(lab, pod) as connection:
        assert get(connection) == "TimeoutError"
        pod.thaw()
        assert connection.recv(1000).endswith(b"web")


def test_a_killed_process_ends_its_connections_and_may_start_again(lab: Lab, pod: Pod) -> None:
    with dial(lab, pod) as old:
        pod.kill()
        assert get(old) in ("end of file", "ConnectionResetError", "BrokenPipeError")
    assert dial_fails(lab, pod) == "ConnectionRefusedError"
    pod.start()
    pod.wait_listening(PORT)
    with dial(lab, pod) as new:
        assert get(new) == "web"


def test_a_terminated_pod_answers_what_it_has_begun(lab: Lab, pod: Pod) -> None:
    with dial(lab, pod) as idle, dial(lab, pod) as busy:
        assert get(idle) == "web"
        busy.sendall(b"GET /slow?seconds=1 HTTP/1.1\r\nX-Request-Id: begun\r\n\r\n")
        while "begun" not in (lab.folder / "received").read_text():
            assert pod.is_running
        pod.terminate()
        idle.settimeout(30.0)
        assert idle.recv(1000) == b""
        assert dial_fails(lab, pod) == "ConnectionRefusedError"
        busy.settimeout(30.0)
        assert b"Connection: close" in busy.recv(1000)
    assert pod.process.wait(30) == 0


def test_a_pod_that_does_not_come_up_says_why(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"(?s)bad ended with 2 before it listened at 8080: .*arguments: --what"):
        lab.pod("bad", command=[sys.executable, "-m", "tests.real.http_pod", "bad", "--what"], port=PORT)


CRASHING = """
import os, sys
from tests.real.lab import Lab
lab = Lab("hccrash").__enter__()
pod = lab.pod("web", command=[sys.executable, "-m", "tests.real.http_pod", "web"], port=8080)
print(pod.process.pid, lab.folder, flush=True)
os._exit(1)
"""


def test_the_next_lab_takes_away_what_a_crashed_one_left() -> None:
    died = subprocess.run([sys.executable, "-c", CRASHING], check=False, capture_output=True, text=True, cwd=CHECKOUT)
    assert died.returncode == 1, died.stderr
    pid, folder = died.stdout.split()
    assert ledger.inode_of("hccrash-web") is not None
    assert os.path.exists(f"/proc/{pid}/ns/net")
    with Lab("hclab"):
        for left in (f"/run/netns/{name}" for name in ("hccrash-hub", "hccrash-web", "hccrash-client")):
            assert not os.path.exists(left)
        assert not os.path.exists("/etc/netns/hccrash-web")
        assert not os.path.exists(folder)
        assert not _is_alive(pid)


def _is_alive(pid: str) -> bool:
    """Its namespaces are gone with its life, even where nobody has reaped it yet."""
    try:
        os.stat(f"/proc/{pid}/ns/net")
    except OSError:
        return False
    return True


def test_a_lab_touches_nothing_that_no_lab_made() -> None:
    subprocess.run(["ip", "netns", "add", "hcstranger-hub"], check=True)
    try:
        there = "namespace hcstranger-hub .* is there, and no lab made it"
        with pytest.raises(LabError, match=there), Lab("hcstranger"):
            pass
        assert ledger.inode_of("hcstranger-hub") is not None
        # Not even when a record says that a namespace of that name, another one, was made.
        forged = [{"namespace": "hcstranger-hub", "inode": 1}, {"process": os.getpid(), "inode": 1}]
        (ledger.FOLDER / "hcstranger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in forged))
        assert "hcstranger" in ledger.sweep()
        assert ledger.inode_of("hcstranger-hub") is not None
    finally:
        subprocess.run(["ip", "netns", "del", "hcstranger-hub"], check=True)


def test_two_labs_of_one_prefix_do_not_meet(lab: Lab) -> None:
    with pytest.raises(LabError, match="a lab of the prefix 'hclab' is running"), Lab("hclab"):
        pass
