"""What `import headlessconn` costs over a bare Python, and what it must not drag in."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.figure import Figure

FORBIDDEN = ("aiohttp", "dns.resolver", "typer", "rich")


def _seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def run(quick: bool) -> list[Figure]:
    statements = {"bare": "pass", "package": "import headlessconn", "client": "from headlessconn import Client"}
    least = dict.fromkeys(statements, float("inf"))
    for _ in range(6 if quick else 20):
        for name, statement in statements.items():
            least[name] = min(least[name], _seconds(statement))
    loaded = f"import headlessconn, sys; print(*[name for name in {FORBIDDEN} if name in sys.modules])"
    dragged = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    cost = {name: (seconds - least["bare"]) * 1000 for name, seconds in least.items()}
    return [
        Figure("import headlessconn, over bare Python", cost["package"], "ms", 60),
        Figure("of aiohttp, dns.resolver, typer, rich it imports", len(dragged), "", 0, note=", ".join(dragged)),
        Figure("from headlessconn import Client, over bare Python", cost["client"], "ms"),
    ]
