"""A DNS client for the tests: dnspython over real sockets, and what a reply holds as lines of a master file."""

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from headlessconn.testing import Zone


async def ask(
    zone: Zone, name: str, rdtype: str = "A", *, tcp: bool = False, payload: int | None = 1232, timeout: float = 10.0
) -> dns.message.Message:
    """Ask once, over one transport. `payload` is the EDNS size; `None` asks without EDNS, as dnspython's default is."""
    query = dns.message.make_query(name, rdtype)
    if payload is not None:
        query.use_edns(0, 0, payload)
    if tcp:
        return await dns.asyncquery.tcp(query, "127.0.0.1", port=zone.port, timeout=timeout)
    return await dns.asyncquery.udp(query, "127.0.0.1", port=zone.port, timeout=timeout)


async def addresses(zone: Zone, name: str, rdtype: str = "A") -> list[str]:
    reply = await ask(zone, name, rdtype, tcp=True)
    return [line.split()[-1] for line in lines(reply.answer)]


def lines(section: list[dns.rrset.RRset]) -> list[str]:
    return [
        f"{records.name} {records.ttl} {dns.rdatatype.to_text(records.rdtype)} {record}"
        for records in section
        for record in records
    ]


def rcode(reply: dns.message.Message) -> str:
    return dns.rcode.to_text(reply.rcode())
