"""The query that examines a database and its servers: `doctor`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..._core.untrusted import reraise_from_handler
from ..._reading.requests import run_steps
from ...errors import CommandError, StoreNotReadyError, WrongSchemaError
from .checks import Subject, run
from .database_checks import DATABASE_CHECKS
from .diagnosis import Diagnosis
from .rights import find_missing
from .samples import take_sample
from .server_checks import SERVER_CHECKS
from .servers import Unknown, examine_replica, examine_servers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ..._core.context import Context
    from ..._reading.requests import Query
    from .diagnosis import Finding
    from .rights import Right
    from .samples import Sample
    from .servers import ServerFacts

__all__ = ["doctor"]

FactT = TypeVar("FactT")

#: In this order they are reported.
_CHECKS = (*SERVER_CHECKS[:1], *DATABASE_CHECKS[:2], *SERVER_CHECKS[1:], *DATABASE_CHECKS[2:])


def doctor(context: Context) -> Query[Diagnosis]:
    """Examine a database and its servers.

    Raises:
        StoreError: a server cannot be reached.
    """
    mismatch = ""
    unknown = Unknown("the tally does not fit the database: see the check schema")
    servers: Sequence[ServerFacts] | Unknown = unknown
    replica: ServerFacts | Unknown | None = None
    sample: Sample | Unknown = unknown
    missing: Sequence[Right] | Unknown = unknown
    try:
        servers = yield from _known(examine_servers(context))
        if context.options.reads_elsewhere:
            replica = yield from _known(examine_replica(context))
        sample = yield from _known(take_sample(context))
        missing = yield from _known(_missing(context, servers))
    except WrongSchemaError as error:
        reraise_from_handler(error)
        mismatch = str(error)
    options, schema = context.options, context.schema
    subject = Subject(options, schema, servers, replica, sample, missing, mismatch)
    keys = None if isinstance(sample, Unknown) else sample
    # Some checks take 10 ms for 2,000 bitmaps.
    findings = yield from run_steps(_judge(subject), large=True)
    return Diagnosis(
        findings=findings,
        keys=0 if keys is None else keys.keys,
        complete=keys is not None and keys.complete,
    )


def _judge(subject: Subject) -> Generator[None, None, tuple[Finding, ...]]:
    """Return the findings of all checks; yields between two of them."""
    findings: list[Finding] = []
    for check in _CHECKS:
        findings.append(run(check, subject))
        yield
    return tuple(findings)


def _known(query: Query[FactT]) -> Query[FactT | Unknown]:
    """Return the result of a query; if the server refuses what it needs, why."""
    try:
        return (yield from query)
    except Unknown as reason:
        return reason
    except (CommandError, StoreNotReadyError) as error:
        reraise_from_handler(error)
        return Unknown(str(error))


def _missing(context: Context, servers: Sequence[ServerFacts] | Unknown) -> Query[Sequence[Right]]:
    """Return the commands that are refused. A replica would refuse all that write."""
    if not isinstance(servers, Unknown):
        for server in servers:
            if server.info.get("role") == "slave":
                raise Unknown("this is a read-only replica")
    return (yield from find_missing(context))
