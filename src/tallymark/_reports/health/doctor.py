"""The query that examines a database and its servers: `doctor`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ..._core.failures import is_refused_login
from ..._core.untrusted import reraise_from_handler
from ..._reading.requests import run_steps
from ...errors import PermissionDeniedError, WrongSchemaError
from .checks import Subject, run
from .database_checks import DATABASE_CHECKS
from .diagnosis import Diagnosis
from .rights import find_missing
from .samples import take_sample
from .schema_keys import find_schema_keys
from .server_checks import SERVER_CHECKS
from .servers import Unknown, examine_replica, examine_servers

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ..._core.context import Context
    from ..._reading.requests import Query
    from .diagnosis import Finding
    from .rights import Right
    from .samples import Sample
    from .schema_keys import SchemaKeys
    from .servers import ServerFacts

__all__ = ["doctor"]

FactT = TypeVar("FactT")

_UNKNOWN: Final = Unknown("nothing is known of the database: see the checks rights and schema")

#: In this order they are reported.
_CHECKS = (*SERVER_CHECKS[:1], *DATABASE_CHECKS[:2], *SERVER_CHECKS[1:], *DATABASE_CHECKS[2:])


def doctor(context: Context) -> Query[Diagnosis]:
    """Examine a database and its servers.

    Raises:
        StoreError: a server cannot be reached, refuses the login, or is not ready.
    """
    mismatch = refusal = ""
    servers: Sequence[ServerFacts] | Unknown = _UNKNOWN
    replica: ServerFacts | Unknown | None = None
    sample: Sample | Unknown = _UNKNOWN
    schema_keys: SchemaKeys | Unknown = _UNKNOWN
    missing: Sequence[Right] | Unknown = _UNKNOWN
    try:
        servers = yield from examine_servers(context)
        if context.options.reads_elsewhere:
            replica = yield from examine_replica(context)
        sample = yield from _known(take_sample(context))
        # After the sample: the first mark writes these keys before its bitmaps.
        schema_keys = yield from _known(find_schema_keys(context))
        missing = yield from _known(_missing(context, servers))
    except WrongSchemaError as error:
        reraise_from_handler(error)
        mismatch = str(error)
    except PermissionDeniedError as error:
        # Where one command is examined, its refusal is a fact. This is one of those that each
        # call of the tally begins with.
        reraise_from_handler(error)
        if is_refused_login(error):
            raise
        refusal = str(error)
    subject = Subject(
        context.options,
        context.schema,
        servers,
        replica,
        sample,
        missing,
        schema_keys,
        mismatch,
        refusal,
    )
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


def _missing(context: Context, servers: Sequence[ServerFacts]) -> Query[Sequence[Right]]:
    """Return the commands that are refused. A replica would refuse all that write."""
    for server in servers:
        if server.info.get("role") == "slave":
            raise Unknown("this is a read-only replica")
    return (yield from find_missing(context, on_cluster=any(server.node for server in servers)))
