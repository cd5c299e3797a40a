"""A pool of connections, decided: no clock, no socket, no waiting. The asyncio pool and its blocking twin drive it.

machine    who gets a connection, and what to open, check, reset, close, move next
lifecycle  every move of a connection from one phase to another
commands   what it wants done
slot       one connection's life; one pod's; one caller's place in the queue
shelf      idle connections, and which one goes out next
steps      what is under way, and its time-outs
pods       which ones may be dialled
silence    connections that do not come back
rules      the settings
figures    what is counted; picture: how it looks now
"""

from headlessconn.core.pooling.commands import Cancel, Check, Close, Command, Hand, Open, Probe, Reset, Silent
from headlessconn.core.pooling.figures import Holder, PodView, PoolSnapshot
from headlessconn.core.pooling.machine import Pooling
from headlessconn.core.pooling.picture import holders, last_failure, picture, said
from headlessconn.core.pooling.rules import PoolRules
from headlessconn.core.pooling.slot import Fault, Phase, Place, Pod, Slot, Waiter, spelled

__all__ = [
    "Cancel",
    "Check",
    "Close",
    "Command",
    "Fault",
    "Hand",
    "Holder",
    "Open",
    "Phase",
    "Place",
    "Pod",
    "PodView",
    "PoolRules",
    "PoolSnapshot",
    "Pooling",
    "Probe",
    "Reset",
    "Silent",
    "Slot",
    "Waiter",
    "holders",
    "last_failure",
    "picture",
    "said",
    "spelled",
]
