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
from .servers import EXEC, MULTI, Unknown, find_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._core.context import Context
    from ..._reading.requests import Command, Query

__all__ = ["Right", "find_missing"]

#: A command without its arguments: the server aborts the transaction.
_ABORTING: Final = (b"GET",)


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
    """What needs some commands.

    Attributes:
        verbs, vital: as in `Right`.
        names: the names of the commands.
    """

    verbs: str
    vital: bool
    names: str


#: Stands for the key in `_ARGUMENTS`.
_KEY: Final = b"<key>"

#: The arguments of all commands. Should a server execute these, they leave nothing behind.
_ARGUMENTS: Final[dict[str, tuple[bytes, ...]]] = {
    "SETBIT": (_KEY, b"0", b"0"),
    "BITFIELD": (_KEY, b"GET", b"u1", b"0"),
    "GETBIT": (_KEY, b"0"),
    "BITCOUNT": (_KEY,),
    "BITPOS": (_KEY, b"1"),
    "BITOP": (b"OR", _KEY, _KEY),
    "GET": (_KEY,),
    "SET": (_KEY, b""),
    "STRLEN": (_KEY,),
    "GETRANGE": (_KEY, b"0", b"0"),
    "SETRANGE": (_KEY, b"0", b""),
    "EXISTS": (_KEY,),
    "TYPE": (_KEY,),
    "RENAME": (_KEY, _KEY),
    "PTTL": (_KEY,),
    "EXPIRE": (_KEY, b"60"),
    "EXPIREAT": (_KEY, b"1"),
    "PERSIST": (_KEY,),
    "HGET": (_KEY, b"f"),
    "HSET": (_KEY, b"f", b"1"),
    "HMGET": (_KEY, b"f"),
    "HSCAN": (_KEY, b"0"),
    "HKEYS": (_KEY,),
    "HDEL": (_KEY, b"f"),
    "EVAL": (b"return 1", b"1", _KEY),
    "SCAN": (b"0",),
    "TIME": (),
    "WAIT": (b"0", b"0"),
    "WATCH": (_KEY,),
    "ASKING": (),
    "SETNX": (_KEY, b""),
    "CLUSTER COUNTKEYSINSLOT": (b"0",),
    "DEL": (_KEY,),
    "UNLINK": (_KEY,),
}

_ALWAYS: Final = (
    _Need("marks", True, "SETBIT"),
    _Need("counts, lists, reports", True, "GETBIT BITCOUNT BITPOS STRLEN GETRANGE EXISTS"),
    _Need("counts of several bitmaps", True, "BITOP UNLINK"),
    # Without it, a tally with the plain format does not notice that the database has another one.
    _Need("the check of the schema", True, "GET"),
    _Need("event_names, periods, memory, export, delete_before, delete_all", False, "SCAN"),
    _Need("all deletions", False, "UNLINK"),
    _Need("migrate", False, "PTTL"),
)
_FIELDS: Final = (
    _Need("marks of several users", True, "BITFIELD"),
    _Need(
        "save",
        False,
        "EVAL SET SETRANGE GET BITOP BITCOUNT STRLEN TYPE EXPIRE PERSIST RENAME DEL UNLINK",
    ),
    _Need("exact unmarks, forget, merge", False, "EVAL SETBIT GETBIT"),
    _Need("forget, merge", False, "SCAN"),
    _Need(
        "mark_many, mark_rows",
        False,
        "EVAL GET SET GETRANGE SETRANGE STRLEN BITCOUNT BITOP PTTL UNLINK",
    ),
)
_SHARDS: Final = _Need("marks with shards", True, "SET")
_ACROSS: Final = _Need("merge across shards", False, "PTTL TIME EXISTS EXPIREAT")
_EXPIRY: Final = (
    _Need("marks with the option expire", True, "EXPIREAT"),
    _Need("apply_expiry", False, "SCAN PTTL TIME EXPIREAT"),
)
_IDS: Final = (
    _Need("marks with user_ids", True, "EVAL GET SET EXISTS SETRANGE HGET HSET"),
    _Need("reads with user_ids", True, "GETRANGE HGET HMGET HSCAN"),
    _Need(
        "forget, merge, delete_all with user_ids",
        False,
        "EVAL GET SET EXISTS GETRANGE SETRANGE UNLINK HGET HSET HSCAN HDEL HKEYS",
    ),
    _Need("save with user_ids", False, "HKEYS"),
)
_CACHE: Final = _Need("the cache of numbers, so marks take longer", False, "WATCH")
_REPLICAS: Final = _Need("marks with the option replicas", True, "WAIT")
_MOVES: Final = _Need("marks while a slot is moving", False, "ASKING SETNX")
_SLOTS: Final = _Need("forget, merge, delete_all with user_ids", False, "CLUSTER COUNTKEYSINSLOT")


def _needs(context: Context, *, on_cluster: bool) -> list[_Need]:
    """Return what the verbs of a tally need."""
    options, schema = context.options, context.schema
    chosen: list[tuple[bool, tuple[_Need, ...]]] = [
        (True, _ALWAYS),
        (options.bitfield, _FIELDS),
        (schema.shards is not None, (_SHARDS,)),
        (len(schema.parts) > 1, (_ACROSS,)),
        (bool(options.lifetimes), _EXPIRY),
        (schema.user_ids is not None, _IDS),
        (schema.user_ids is not None and schema.shards is None, (_CACHE,)),
        (bool(options.replicas), (_REPLICAS,)),
        (on_cluster, (_MOVES,)),
        (on_cluster and schema.user_ids is not None, (_SLOTS,)),
    ]
    return [need for applies, needs in chosen if applies for need in needs]


def _probes(needs: Sequence[_Need], key: bytes) -> dict[Command, Right]:
    """Return uses of all commands on a key that does not exist, and what their refusal means."""
    rights: dict[str, Right] = {}
    for need in needs:
        for name in _names(need):
            known = rights.get(name)
            verbs = need.verbs if known is None else f"{known.verbs}, {need.verbs}"
            vital = need.vital or (known is not None and known.vital)
            rights[name] = Right(name, ", ".join(dict.fromkeys(verbs.split(", "))), vital, False)
    return {
        (
            *name.encode().split(),
            *(key if part is _KEY else part for part in _ARGUMENTS[name]),
        ): right
        for name, right in rights.items()
    }


def _names(need: _Need) -> list[str]:
    return [need.names] if need.names in _ARGUMENTS else need.names.split()


def find_missing(context: Context, *, on_cluster: bool) -> Query[list[Right]]:
    """Return the commands that are refused, each once.

    Arguments:
        context: the database.
        on_cluster: whether it is on a cluster.

    Raises:
        Unknown: this cannot be found out.
    """
    needs = _needs(context, on_cluster=on_cluster)
    found = yield from each_shard(context, lambda shard: _probe(needs, shard))
    return list({right.command: right for rights in found for right in rights}.values())


def _probe(needs: Sequence[_Need], shard: Context) -> Query[list[Right]]:
    """Return the commands that are refused on the keys of a shard."""
    key = f"{shard.origin.prefix}tmp:{random_token().hex()}".encode()
    probes = _probes(needs, key)
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
        replies = yield _raw([MULTI, *probes, _ABORTING, EXEC])
    except (SlotMovingError, StoreNotReadyError) as error:
        reraise_from_handler(error)
        raise Unknown(f"the server is not ready: {error}") from None
    if not isinstance(replies[-1], CommandError):
        raise Unknown("the server executes transactions of which it refuses a command")
    return [
        right._replace(unknown=isinstance(reply, UnknownCommandError))
        for right, reply in zip(probes.values(), replies[1:], strict=False)
        if isinstance(reply, PermissionDeniedError | UnknownCommandError)
    ]


def _raw(commands: list[Command]) -> Request:
    """Return a request of which no single command is sent again, as while a slot is moving."""
    encoded = b"".join(encoding.command(*command) for command in commands)
    return Request(commands, tolerant=True, changes=True, encoded=encoded)
