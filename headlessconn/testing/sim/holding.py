"""Long-lived connections of a simulated application, beside its requests: a pool as small as can be, placed by the same
engine. (`fleet.py` looks at a thousand such processes and nothing else.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headlessconn.core.claim import KEEP, Claim, ConnId, Retire
from headlessconn.core.endpoint import NO_DIAL, How, Key
from headlessconn.core.pick import Nobody
from headlessconn.testing.sim.world import CONNECT, REFUSE, Pod

if TYPE_CHECKING:
    from headlessconn.testing.sim.client import SimClient

LOGIN = 0.005  # seconds of a login beyond the dial
USE = 0.05  # seconds for which one is taken, at most
PAUSE = 3.0  # seconds between two uses of one, at most
BACK_OFF = 0.2  # seconds after which one that is lacking is dialled again


class Link:
    """An open connection."""

    conn: ConnId = 0
    busy = False
    over = False

    def __init__(self, holder: Holder, pod: Pod, now: float) -> None:
        self.holder = holder
        self.pod = pod
        self.opened_at = now


class Holder:
    """`size` connections of one client. What it began and what ended is counted, so that nothing is lost unseen.

    claims, ended     dials that were begun, and those that ended
    opened            connections that came of them
    failures          when each dial failed, and of whom
    spans             from when to when each closed one was open, and to whom
    """

    def __init__(self, client: SimClient, size: int) -> None:
        self.client = client
        self.size = size
        self.links: dict[ConnId, Link] = {}
        self.claims = self.ended = self.opened = 0
        self.failures: list[tuple[float, Key]] = []
        self.spans: list[tuple[float, float, Key]] = []
        self._dialling = 0
        self._waits = False
        self._closing = False

    def fill(self, _: None = None) -> None:
        """Dial as many as are lacking."""
        self._waits = False
        while len(self.links) + self._dialling < self.size and not self._closing:
            claim = self.client.engine.place(self.client.world.now)
            self.client.obey()
            if isinstance(claim, Nobody):
                self._fill_later()
                return
            self._dialling += 1
            self.dial(claim)

    def _fill_later(self) -> None:
        if not self._waits and not self._closing:
            self._waits = True
            self.client.world.at(self.client.world.now + BACK_OFF, self.fill)

    def dial(self, claim: Claim) -> None:
        client, world = self.client, self.client.world
        self.claims += 1
        pod = world.by_key[claim.key]
        if client.no_sockets:
            world.at(world.now, self._dialled, (claim, pod, How.LOCAL))
            return
        pod.dialled.append((world.now, client.number))
        wait = {"accept": CONNECT + LOGIN, "refuse": REFUSE, "drop": client.options.connect_timeout}[pod.dials]
        how = {"accept": How.OK, "refuse": How.REFUSED, "drop": How.DIAL_TIMEOUT}[pod.dials]
        if how is How.OK and pod.serves == "never":
            wait, how = wait + client.options.connect_timeout, How.TIMEOUT  # it accepts, and the login hangs
        world.at(world.now + wait, self._dialled, (claim, pod, how))

    def _dialled(self, argument: tuple[Claim, Pod, How]) -> None:
        claim, pod, how = argument
        client, now = self.client, self.client.world.now
        self.ended += 1
        if claim.replaces is None:
            self._dialling -= 1
        if how is How.OK and pod.dials != "accept":
            how = How.REFUSED  # it went away meanwhile
        if how is How.OK:
            self._open(claim, pod)
            return
        if how in NO_DIAL:
            client.contact(pod, claim.started_at, how)
        self.failures.append((now, pod.key))
        client.engine.failed(claim, how, now)
        client.obey()
        self._fill_later()

    def _open(self, claim: Claim, pod: Pod) -> None:
        client, world = self.client, self.client.world
        link = Link(self, pod, world.now)
        self.opened += 1
        client.contact(pod, claim.started_at, How.OK)
        link.conn = client.engine.opened(claim, world.now, warms=True)
        self.links[link.conn] = link
        pod.links[link] = None
        client.obey()
        if not link.over:
            self._back(link)

    def _use(self, link: Link) -> None:
        """Somebody takes it for a while, unless it should go."""
        client, world = self.client, self.client.world
        if link.over:
            return
        said = client.engine.checked_out(link.conn, world.now)
        link.busy = said is KEEP
        client.obey()
        if said is KEEP:
            world.at(world.now + USE * world.rng.random(), self._back, link)
        else:
            self._retired(link)

    def _back(self, link: Link) -> None:
        """It comes back, or was never out."""
        client, world = self.client, self.client.world
        if link.over:
            return
        link.busy = False
        said = client.engine.checked_in(link.conn, world.now)
        client.obey()
        if said is KEEP and not self._closing:
            world.at(world.now + PAUSE * world.rng.random(), self._use, link)
        else:
            self._retired(link)

    def retire(self, said: Retire) -> None:
        """The engine says that an idle one should go."""
        link = self.links.get(said.conn)
        if link is not None and not link.busy:
            self.client.world.at(self.client.world.now, self._retired, link)

    def _retired(self, link: Link) -> None:
        if not link.over and not link.busy:
            self._close(link)

    def broke(self, link: Link) -> None:
        """The pod died under it."""
        client = self.client
        client.world.at(max(client.world.now, client.stalled_until), self._broken, link)

    def _broken(self, link: Link) -> None:
        if not link.over:
            self._close(link, How.RESET if link.busy else How.RESET_REUSED)

    def _close(self, link: Link, how: How = How.OK) -> None:
        link.over = True
        self.spans.append((link.opened_at, self.client.world.now, link.pod.key))
        del self.links[link.conn]
        link.pod.links.pop(link, None)
        self.client.engine.closed(link.conn, self.client.world.now, how)
        self.client.obey()
        self.fill()

    def close(self, _: None = None) -> None:
        """The application ends."""
        self._closing = True
        for link in list(self.links.values()):
            if not link.over:
                self._close(link)
