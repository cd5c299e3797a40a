"""The command `headlessconn`. Data goes to stdout, everything else to stderr.

Exit codes: 0 it is as asked for, 1 it is not (`resolve` found no endpoint), 2 it was asked for wrongly, 130 Ctrl-C.
"""

from __future__ import annotations

import sys

NEEDED = ("typer", "rich")


def main() -> int:
    """What the installed script calls. Ends with `SystemExit`, or returns the exit code."""
    try:
        from headlessconn.cli.app import app

        app(prog_name="headlessconn")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in NEEDED:
            raise
        print(
            f"headlessconn: the command line needs {missing.name}, which is not installed; the library does without. "
            "Install the extra: pip install 'headlessconn[cli]'",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:  # while it was still loading
        return 130
    return 0
