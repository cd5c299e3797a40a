"""The figures headlessconn is held to, measured side by side in one run: `python -m benchmarks`, or `make bench`."""
