"""Prints pip constraints that pin every dependency of pyproject.toml to the lowest version which it allows.

pip always takes the newest version, so a lower bound that nobody installs is a guess. `make test-oldest` installs
with these constraints and runs the adapters' and the runtime's tests there.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
BOUND = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,\s-]*\])?\s*>=\s*(?P<floor>[\w.]+)")


def floors(requirements: list[str], project: str) -> list[str]:
    """One `name==floor` a requirement; `project`'s extras that name the project itself are passed over."""
    pins = []
    for requirement in requirements:
        if re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0] == project:
            continue
        bound = BOUND.match(requirement)
        if bound is None:
            sys.exit(f"{PYPROJECT.name}: {requirement!r} has no lower bound; write it as name>=version")
        pins.append(f"{bound['name']}=={bound['floor']}")
    return pins


if __name__ == "__main__":
    table = tomllib.loads(PYPROJECT.read_text())["project"]
    wanted = [*table["dependencies"], *(r for extra in table["optional-dependencies"].values() for r in extra)]
    print(*sorted(floors(wanted, table["name"])), sep="\n")
