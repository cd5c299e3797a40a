"""A certificate authority for the tests that speak TLS, made once: keys take time."""

from __future__ import annotations

import ssl

import pytest
import trustme


class Authority:
    """Issues certificates for Services, and is trusted by `trusting`."""

    def __init__(self) -> None:
        self._ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.trusting = ssl.create_default_context()
        self._ca.configure_trust(self.trusting)

    def serving(self, *names: str) -> ssl.SSLContext:
        """What a pod needs to show a certificate for these names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names, key_type=trustme.KeyType.ECDSA).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()
