"""What takes time to make: a certificate authority for the tests that speak TLS, and MySQL servers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from tests.real.mysql_cluster import MySQLCluster


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


@pytest.fixture
def mysql() -> Iterator[MySQLCluster]:
    """A primary with two replicas, for one test to do its worst with."""
    from tests.adapters.sql_world import cluster_of

    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def steady() -> Iterator[MySQLCluster]:
    """The same, to which nothing lasting is done."""
    from tests.adapters.sql_world import cluster_of

    with cluster_of(2) as cluster:
        yield cluster
