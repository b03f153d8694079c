"""Which commands the Redis user may not use, found without executing any. Pure.

The commands are queued in a transaction, which a command without its arguments aborts. A server
checks the rights, also those to the keys, when it queues a command
(https://redis.io/docs/latest/develop/using-commands/transactions/). This needs no right to
read ACLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ..._core import encoding
from ..._core.failures import SlotMovingError
from ..._core.untrusted import reraise_from_handler
from ..._core.user_ids import random_token
from ..._reading.fanout import each_shard
from ..._reading.requests import Request
from ...errors import CommandError, PermissionDeniedError, StoreNotReadyError, UnknownCommandError
from .servers import Unknown, find_refusal

if TYPE_CHECKING:
    from ..._core.context import Context
    from ..._reading.requests import Command, Query

__all__ = ["Right", "find_missing"]

_MULTI: Final = (b"MULTI",)
_EXEC: Final = (b"EXEC",)

#: A command without its arguments: the server aborts the transaction.
_ABORTING: Final = (b"GET",)

_SCANS: Final = "event_names, periods, memory, export, forget, merge and all deletions of many"


class Right(NamedTuple):
    """A command that is refused.

    Attributes:
        command: its name.
        verbs: what needs it.
        vital: whether marks or counts need it.
        unknown: whether the server does not know the command; else the user may not use it.
    """

    command: str
    verbs: str
    vital: bool
    unknown: bool


class _Need(NamedTuple):
    """Commands that some verbs need. Should a server execute these, they leave nothing behind.

    Attributes:
        verbs, vital: as in `Right`.
        commands: without the key, which follows the name.
    """

    verbs: str
    vital: bool
    commands: tuple[Command, ...]


_MARKS: Final = _Need("marks", True, ((b"SETBIT", b"0", b"0"),))
_FIELDS: Final = _Need("marks", True, ((b"BITFIELD", b"GET", b"u1", b"0"),))
_READS: Final = _Need(
    "counts and lists",
    True,
    (
        *((b"GETBIT", b"0"), (b"BITCOUNT",), (b"BITPOS", b"1"), (b"GET",), (b"STRLEN",)),
        *((b"GETRANGE", b"0", b"0"), (b"EXISTS",)),
    ),
)
_ENDS: Final = _Need("apply_expiry, migrate, and merge across shards", False, ((b"PTTL",),))
_SCRIPTS: Final = _Need(
    "mark_many, save and exact unmarks", False, ((b"SET", b""), (b"SETRANGE", b"0", b""))
)
_SAVE: Final = _Need("save", False, ((b"TYPE",), (b"EXPIRE", b"60"), (b"PERSIST",), (b"DEL",)))
_EXPIRE: Final = _Need("marks with the option expire", True, ((b"EXPIREAT", b"1"),))
_IDS: Final = _Need(
    "marks and reads with user_ids",
    True,
    ((b"HGET", b"f"), (b"HSET", b"f", b"1"), (b"HMGET", b"f"), (b"HSCAN", b"0")),
)
_ERASE: Final = _Need(
    "forget, merge and delete_all with user_ids", False, ((b"HDEL", b"f"), (b"HKEYS",))
)
_DELETE: Final = _Need("counts of several bitmaps, and deletions", True, ((b"UNLINK",),))


def _needs(context: Context) -> list[_Need]:
    """Return what the verbs of a tally need."""
    options = context.options
    needs = [_MARKS, _READS, _ENDS]
    if options.bitfield:
        needs += [_FIELDS, _SCRIPTS, _SAVE]
    if options.lifetimes:
        needs.append(_EXPIRE)
    if context.schema.user_ids is not None:
        needs += [_IDS, _ERASE]
    return [*needs, _DELETE]


def _probes(context: Context, key: bytes) -> dict[Command, tuple[str, bool]]:
    """Return uses of all commands on a key that does not exist, and who needs them."""
    probes: dict[Command, tuple[str, bool]] = {
        (name, key, *arguments): (need.verbs, need.vital)
        for need in _needs(context)
        for name, *arguments in need.commands
    }
    others: list[tuple[Command, str, bool]] = [
        ((b"BITOP", b"OR", key, key), "counts of several bitmaps", True),
        ((b"SCAN", b"0"), _SCANS, False),
        ((b"TIME",), "apply_expiry, and merge across shards", False),
    ]
    if context.options.bitfield:
        erasure = "mark_many, save, exact unmarks, forget and merge"
        others += [
            ((b"EVAL", b"return 1", b"1", key), erasure, False),
            ((b"RENAME", key, key), "save", False),
        ]
    if context.options.replicas:
        others.append(((b"WAIT", b"0", b"0"), "marks with the option replicas", True))
    return {**{command: (verbs, vital) for command, verbs, vital in others}, **probes}


def find_missing(context: Context) -> Query[list[Right]]:
    """Return the commands that are refused, each once.

    Raises:
        Unknown: this cannot be found out.
    """
    found = yield from each_shard(context, lambda shard: _probe(context, shard))
    return list({right.command: right for rights in found for right in rights}.values())


def _probe(context: Context, shard: Context) -> Query[list[Right]]:
    """Return the commands that are refused on the keys of a shard."""
    key = f"{shard.origin.prefix}tmp:{random_token().hex()}".encode()
    probes = _probes(context, key)
    try:
        # Without MULTI, the server would execute the commands.
        refusal = yield from find_refusal(changes=True)
        if isinstance(refusal, PermissionDeniedError | UnknownCommandError):
            is_unknown = isinstance(refusal, UnknownCommandError)
            return [
                Right("MULTI and EXEC", "marks, and counts of several bitmaps", True, is_unknown)
            ]
        if refusal is not None:
            raise Unknown(f"the server refused a transaction: {refusal}")
        replies = yield _raw([_MULTI, *probes, _ABORTING, _EXEC])
    except (SlotMovingError, StoreNotReadyError) as error:
        reraise_from_handler(error)
        raise Unknown(f"the server is not ready: {error}") from None
    if not isinstance(replies[-1], CommandError):
        raise Unknown("the server executes transactions of which it refuses a command")
    return [
        Right(
            command[0].decode(),
            *verbs,
            isinstance(reply, UnknownCommandError),
        )
        for (command, verbs), reply in zip(probes.items(), replies[1:], strict=False)
        if isinstance(reply, PermissionDeniedError | UnknownCommandError)
    ]


def _raw(commands: list[Command]) -> Request:
    """Return a request of which no single command is sent again, as while a slot is moving."""
    encoded = b"".join(encoding.command(*command) for command in commands)
    return Request(commands, tolerant=True, changes=True, encoded=encoded)
