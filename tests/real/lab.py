"""A cluster's network on one machine: real pods, each a process in a network namespace of its own, and real faults.

A bridge in a namespace of its own (the hub), pods and one client on it with addresses of 10.244.0.0/16, the cluster's
DNS at 10.96.0.10. Nothing leads out: no namespace has a link to the machine's own network. Needs root, `ip`, `nft`.

    with Lab("hcsql") as lab:
        web = lab.pod("web", address="10.244.1.10", command=["nginx", "-g", "daemon off;"], port=80)
        lab.dns.headless("web.shop", [(web.address, 80)])
        client = lab.client([sys.executable, "client.py"])
        web.black_hole()

What was made is written into a ledger first and taken away by it: at the end, or, after a crash, by the next lab.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from tests.real import ledger
from tests.real.ledger import LabError, Ledger
from tests.real.nameserver import PORT, Nameserver

PODS = ipaddress.ip_network("10.244.0.0/16")
HUB = "10.244.0.1"
CLIENT = "10.244.0.100"
DNS = "10.96.0.10"
# A bridge without a fixed address borrows the lowest of its ports'. When that pod goes, what the client sends to the
# hub is lost until ARP recovers: 41 s were seen, none with this.
HUB_MAC = "02:00:0a:f4:00:01"
CHECKOUT = Path(__file__).parents[2]
PATIENCE = 30.0  # for a process to listen; a limit, not an expectation

_PREFIX = re.compile(r"[a-z][a-z0-9]{1,11}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_CLONE_NEWNET = 0x40000000


def missing() -> str:
    """What this machine lacks for a lab; empty when it can have one. For `tests.tiers.require`."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root may make network namespaces (sudo make test)"
    lacking = [f"{program} ({package})" for program, package in _PROGRAMS.items() if not shutil.which(program)]
    if lacking:
        return f"not on the PATH, with their Debian packages: {', '.join(lacking)}"
    # Some sandboxes have the programs and a root, but not the right.
    tried = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True, text=True)
    return f"no network namespaces for us: {tried.stderr.strip()}" if tried.returncode else ""


_PROGRAMS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux"}


def run(*command: str, text: str = "") -> str:
    """Run a short command; raise `LabError` with what it said when it fails."""
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)
    if done.returncode:
        given = f" (it was given {text!r})" if text else ""
        raise LabError(f"`{' '.join(command)}` failed: {done.stderr.strip()}{given}")
    return done.stdout


class Node:
    """A namespace on the bridge, with one address."""

    def __init__(self, lab: Lab, name: str, address: str) -> None:
        if not _NAME.fullmatch(name):
            raise LabError(f"{name!r} is no name for a pod: small letters, digits and dashes")
        self.lab = lab
        self.name = name
        self.address = address
        self.namespace = f"{lab.prefix}-{name}"
        lab.add_namespace(self.namespace)
        link = f"p{lab.next_number()}"
        lab.ip_hub(f"link add {link} type veth peer name eth0 netns {self.namespace}", f"link set {link} master br0 up")
        self.link_up(first=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.address} in {self.namespace}>"

    def spawn(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        """Start a process here, in a group of its own, with the lab's DNS in its resolv.conf."""
        return self.lab.spawn(self.namespace, command, **popen)

    def _ip(self, *lines: str) -> None:
        run("ip", "-n", self.namespace, "-batch", "-", text="\n".join(lines) + "\n")

    def black_hole(self, port: int | None = None) -> None:
        """Drop every TCP packet to and from `port` (or any): new and established connections fall silent."""
        inward, outward = (f"tcp dport {port}", f"tcp sport {port}") if port else ("meta l4proto tcp",) * 2
        self._filter({"input": f"{inward} drop", "output": f"{outward} drop"})

    def reset(self, port: int | None = None) -> None:
        """Answer every TCP packet with a reset: new connections are refused, established ones reset."""
        self._filter({"input": f"{f'tcp dport {port}' if port else 'meta l4proto tcp'} reject with tcp reset"})

    def _filter(self, rules: Mapping[str, str]) -> None:
        lines = ["add table inet fault", "delete table inet fault", "add table inet fault"]
        for hook, rule in rules.items():
            lines.append(f"add chain inet fault {hook} {{ type filter hook {hook} priority 0; }}")
            lines.append(f"add rule inet fault {hook} {rule}")
        self.lab.nft(self.namespace, *lines)

    def pass_all(self) -> None:
        """End `black_hole` or `reset`."""
        self.lab.nft(self.namespace, "add table inet fault", "delete table inet fault")

    def link_down(self) -> None:
        """Pull the cable: silence, and after some seconds EHOSTUNREACH for those who dial."""
        self._ip("link set eth0 down")

    def link_up(self, *, first: bool = False) -> None:
        """Plug it in again. The kernel dropped the routes with the link."""
        address = ["link set lo up", f"addr add {self.address}/16 dev eth0"] if first else []
        self._ip(*address, "link set eth0 up", f"route replace 10.96.0.0/16 via {HUB}")


class Pod(Node):
    """A server process in its namespace. `start` runs it again there, as a kubelet restarts a container."""

    def __init__(self, lab: Lab, name: str, address: str, command: Sequence[str | Path], **popen: Any) -> None:
        super().__init__(lab, name, address)
        self._command, self._popen = command, popen
        self.start()

    def start(self) -> None:
        self.process = self.spawn(self._command, **self._popen)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_listening(self, port: int, timeout: float = PATIENCE) -> None:
        """Wait until the pod listens, without a connection of ours that its log would show."""
        self.lab.wait_listening(self.process, port, self.name, timeout)

    def freeze(self) -> None:
        """SIGSTOP: the kernel goes on accepting connections, and nobody answers."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, as at the start of a pod's grace period."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: new connections are refused at once, established ones end."""
        self.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def remove(self) -> None:
        """The pod is gone with its namespace: nobody answers at its address any more."""
        self.kill()
        self.lab.delete_namespace(self.namespace)

    def send_signal(self, number: signal.Signals) -> None:
        """To the process and its children; nothing when it has ended."""
        if self.is_running:  # unreaped, so the number is still its own
            os.killpg(self.process.pid, number)


class Lab:
    """The hub, one client namespace, and DNS (`dns=False`: bring your own to 10.96.0.10, with `hub`).

    prefix   of all names that the lab makes; two labs at a time need two
    search   the namespace that the resolv.conf of pods and client searches first

    Raises `LabError` when something of that name is there which no lab made.
    """

    def __init__(self, prefix: str, *, dns: bool = True, search: str = "shop") -> None:
        if not _PREFIX.fullmatch(prefix):
            raise LabError(f"{prefix!r} is no prefix: 2 to 12 small letters and digits, a letter first")
        self.prefix = prefix
        self._with_dns = dns
        domains = f"{search}.svc.cluster.local svc.cluster.local cluster.local"
        self._resolv_conf = f"nameserver {DNS}\nsearch {domains}\noptions ndots:5\n"
        self._hub = f"{prefix}-hub"
        self._number = 0
        self._children: list[tuple[subprocess.Popen[bytes], str]] = []

    def __enter__(self) -> Self:
        ledger.sweep()
        self._ledger = Ledger(self.prefix)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _build(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"headlessconn-{self.prefix}-"))
        self._ledger.folder(self.folder)
        self.add_namespace(self._hub)
        self.ip_hub(
            "link set lo up",
            f"link add br0 address {HUB_MAC} type bridge",
            *(f"addr add {address} dev br0" for address in (f"{HUB}/16", f"{DNS}/32")),
            "link set br0 up",
        )
        self.client_node = Node(self, "client", CLIENT)
        if self._with_dns:
            with self._within(self._hub):  # /proc/sys/net is the namespace's of who opens it
                Path("/proc/sys/net/ipv4/conf/br0/route_localnet").write_text("1\n")
            to = f"dnat to 127.0.0.1:{PORT}"
            self.nft(
                self._hub,
                "add table ip dns",
                "add chain ip dns in { type nat hook prerouting priority -100; }",
                *(f"add rule ip dns in ip daddr {DNS} {transport} dport 53 {to}" for transport in ("udp", "tcp")),
            )
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.dns = Nameserver(self.hub([sys.executable, "-m", "tests.real.nameserver"], **pipes))

    def close(self) -> None:
        """Take everything away. Once is enough, twice does no harm."""
        if not self._ledger.path.exists():
            return
        self._ledger.close()
        for process, _ in self._children:
            process.wait(PATIENCE)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._children.clear()

    # --- what runs in it

    def pod(
        self,
        name: str,
        *,
        command: Sequence[str | Path],
        address: str | None = None,
        port: int | None = None,
        **popen: Any,
    ) -> Pod:
        """A new pod. Without `address` it gets the next one of 10.244.1.0 and up, never used before in this lab.

        port    wait until the process listens there; `None`: do not wait, see `Pod.wait_listening`
        popen   as for `subprocess.Popen`; stdout and stderr go to the lab's `log(name)` when not given
        """
        address = address or str(PODS[256 + 10 + self._number])
        if ipaddress.ip_address(address) not in PODS:
            raise LabError(f"{address} is not in {PODS}, and the lab has no other addresses")
        pod = Pod(self, name, address, command, **popen)
        if port is not None:
            pod.wait_listening(port)
        return pod

    def client(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        """Start a process in the client's namespace."""
        return self.client_node.spawn(command, **popen)

    def hub(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        """Start a process in the hub's namespace, which has 10.244.0.1 and 10.96.0.10: a DNS or API server."""
        return self.spawn(self._hub, command, **popen)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the client's namespace: sockets that are made here belong there, and stay there.

        resolv.conf is that of the machine still; name `DNS` where a server is asked for.
        """
        with self._within(self.client_node.namespace):
            yield

    @contextlib.contextmanager
    def _within(self, namespace: str) -> Iterator[None]:
        with open("/proc/thread-self/ns/net") as home, (ledger.NAMESPACES / namespace).open() as there:
            _enter(there)
            try:
                yield
            finally:
                _enter(home)

    def spawn(self, namespace: str, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        name = namespace.removeprefix(f"{self.prefix}-")
        inode = ledger.inode_of(namespace)
        with self.log_path(name).open("ab") as log:
            defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": CHECKOUT}
            process: subprocess.Popen[bytes] = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *map(str, command)], start_new_session=True, **(defaults | popen)
            )
        self._ledger.process(process.pid, namespace)
        self._children.append((process, name))
        # Until `ip` has entered it, neither the ledger nor anybody else could tell that the process is ours.
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(f"/proc/{process.pid}/ns/net").st_ino == inode:
                    break
            time.sleep(0.001)
        return process

    def wait_listening(self, process: subprocess.Popen[bytes], port: int, name: str, timeout: float = PATIENCE) -> None:
        """Wait until anything listens at `port` in the namespace where `process` runs."""
        deadline = time.monotonic() + timeout
        while not _listens(process.pid, port):
            if process.poll() is not None:
                raise LabError(f"{name} ended with {process.returncode} before it listened at {port}: {self.log(name)}")
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not listen at {port} after {timeout:g} s: {self.log(name)}")
            time.sleep(0.005)

    def log_path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        """The end of what a node's processes wrote."""
        return self.log_path(name).read_text(errors="replace")[-2000:] if self.log_path(name).exists() else ""

    # --- what it is built of

    def add_namespace(self, name: str) -> None:
        folder = Path("/etc/netns") / name  # `ip netns exec` lays it over /etc
        if ledger.inode_of(name) is not None or folder.exists():
            raise LabError(
                f"namespace {name} or {folder} is there, and no lab made it: take another prefix, or, if it is yours, "
                f"`ip netns del {name}; rm -r {folder}`"
            )
        run("ip", "netns", "add", name)
        self._ledger.namespace(name)
        folder.mkdir(parents=True)
        self._ledger.folder(folder)
        (folder / "resolv.conf").write_text(self._resolv_conf)

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace of this lab whose processes have ended."""
        if not name.startswith(f"{self.prefix}-"):
            raise LabError(f"namespace {name} is not of the lab {self.prefix}")
        run("ip", "netns", "del", name)
        shutil.rmtree(Path("/etc/netns") / name)

    def ip_hub(self, *lines: str) -> None:
        run("ip", "-n", self._hub, "-batch", "-", text="\n".join(lines) + "\n")

    def nft(self, namespace: str, *lines: str) -> None:
        run("ip", "netns", "exec", namespace, "nft", "-f", "-", text="\n".join(lines) + "\n")

    def next_number(self) -> int:
        self._number += 1
        return self._number


def _enter(namespace: IO[str]) -> None:
    if sys.version_info >= (3, 12):
        os.setns(namespace.fileno(), _CLONE_NEWNET)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")


def _listens(pid: int, port: int) -> bool:
    """From the kernel's own table of the namespace in which `pid` is."""
    listening, wanted = "0A", f"{port:04X}"
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{table}") as lines:
            for columns in map(str.split, lines):
                if columns[3] == listening and columns[1].endswith(f":{wanted}"):
                    return True
    return False
