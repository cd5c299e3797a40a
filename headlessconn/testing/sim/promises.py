"""The numbers that a client promises, said once more. A judge who read them from the core would follow it anywhere."""

from __future__ import annotations

# What attempts beyond those asked for may cost (design: 20 % of requests and one a second; what a quiet client may
# save up, and for how many seconds of its requests a busy one may).
RATIO = 0.2
PER_SECOND = 1.0
BURST = 10.0
SAVED = 10.0

SENT = 3  # copies of one request that may reach a pod
COPIES = 2  # of them, silent at once
DIALS = 8  # pods that one request may dial
ABREAST = 3  # of them, silent at once

SILENT_MIN = 0.25  # seconds of silence that say anything
SLOWER = 4.0  # times the slowest of a hundred
ALONE = 4.0  # times longer where one answer is owed
OTHERS = 5  # answers of others meanwhile
ENOUGH = 20  # latencies without which a kind of request is not known
KEPT = 256  # latencies of a kind that are remembered

REDIAL_MAX = 5.0  # seconds between re-dials of a pod that refused
