"""`python -m headlessconn` is the command `headlessconn`."""

from headlessconn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
