"""TLS to a pod: an address is dialled, the Service's name is verified."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MethodType
from typing import Any


class PinnedContext(ssl.SSLContext):
    """A context for libraries that verify the host which they dial: whatever name they pass, `name` is verified.

    It wraps with the context that it was made of, which stays as it is: certificates and versions are that one's.
    """

    _made_of: ssl.SSLContext
    _name: str

    def __new__(cls, made_of: ssl.SSLContext, name: str) -> PinnedContext:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._made_of, self._name = made_of, name
        return self

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = self._made_of.wrap_bio(incoming, outgoing, False, self._name, session)
        made.unwrap = MethodType(_say_goodbye, made)  # type: ignore[method-assign]
        return made

    def wrap_socket(self, sock: Any, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self._made_of.wrap_socket(sock, *arguments, **(named | {"server_hostname": self._name}))


def _say_goodbye(made: ssl.SSLObject) -> None:
    """Say it, and do not wait for the answer: asyncio would wait 30 s for a pod that has vanished, and so would whoever
    is to be cut off from it. What ends the protocol above, such as MySQL's COM_QUIT, has been said before."""
    try:
        ssl.SSLObject.unwrap(made)
    except ssl.SSLWantReadError:
        pass


def context_of(given: Any) -> ssl.SSLContext | None:
    """What is meant by the `ssl=` of MySQL drivers: a context, True, or a dict as PyMySQL reads it. None: no TLS."""
    if isinstance(given, ssl.SSLContext):
        return given
    if not given:
        return None
    if given is True:
        return ssl.create_default_context()
    if not isinstance(given, Mapping):
        raise TypeError(f"ssl={given!r} is neither a context, nor True, nor a dict with ca, cert, key")
    ca, capath = given.get("ca"), given.get("capath")
    context = ssl.create_default_context(cafile=ca, capath=capath)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)  # what MySQL signs for itself does not pass it
    is_verified = ca is not None or capath is not None
    context.check_hostname = is_verified and _is_on(given.get("check_hostname", True))
    if not (is_verified and _is_on(given.get("verify_mode", True))):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if given.get("cert"):
        context.load_cert_chain(given["cert"], given.get("key"), given.get("password"))
    if given.get("cipher"):
        context.set_ciphers(given["cipher"])
    return context


def _is_on(value: object) -> bool:
    return str(value).lower() not in ("none", "0", "false", "no", "off")
