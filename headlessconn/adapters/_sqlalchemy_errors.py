"""Our errors as SQLAlchemy's: an `except OperationalError` that stands today goes on working."""

from __future__ import annotations

import sqlalchemy.exc

from headlessconn import errors


class NoEndpoints(errors.NoEndpoints, sqlalchemy.exc.OperationalError):
    """Nobody behind the Service: `headlessconn.NoEndpoints`, and SQLAlchemy's own `OperationalError`."""

    def __init__(self, cause: errors.NoEndpoints) -> None:
        sqlalchemy.exc.OperationalError.__init__(self, None, None, cause)
        errors.NoEndpoints.__init__(
            self, cause.target, cause.waited, cause.said, cause.age, cause.advice, cause.ready, cause.wanted
        )
        self._cause = cause

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._cause,)

    __str__ = errors.NoEndpoints.__str__


class NoPrimary(errors.NoPrimary, sqlalchemy.exc.OperationalError):
    """No pod takes writes: `headlessconn.errors.NoPrimary`, and SQLAlchemy's own `OperationalError`. Try again."""

    def __init__(self, cause: errors.NoPrimary) -> None:
        sqlalchemy.exc.OperationalError.__init__(self, None, None, cause)
        errors.NoPrimary.__init__(self, cause.target, cause.waited, cause.asked)
        self._cause = cause

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._cause,)

    __str__ = errors.NoPrimary.__str__
