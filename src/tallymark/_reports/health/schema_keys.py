"""Which keys a database has that show its number of shards and its type of user ids. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..._core import encoding
from ..._core.failures import RedirectedError, SlotMovingError
from ..._core.untrusted import reraise_from_handler
from ..._reading.fanout import each_shard, gather
from ..._reading.requests import ListNodes, Request
from ...errors import CommandError
from .servers import Unknown, refusal_text

if TYPE_CHECKING:
    from ..._core.context import Context
    from ..._reading.requests import Query

__all__ = ["SchemaKeys", "find_schema_keys"]


class SchemaKeys(NamedTuple):
    """Which keys there are that show the schema.

    Attributes:
        schema: whether the schema key exists; ``None`` if that is not known.
        stamped: the shards whose users have numbers in a dictionary.
    """

    schema: bool | None
    stamped: frozenset[int]


def find_schema_keys(context: Context) -> Query[SchemaKeys]:
    """Return which keys there are that show the schema.

    Raises:
        Unknown: the server refuses ``EXISTS``, or a slot is moving.
    """
    schema = yield from _has_schema_key(context)
    try:
        stamps = yield from each_shard(
            context, lambda shard: _exists(f"{shard.origin.prefix}ids:stamp".encode())
        )
    except SlotMovingError as error:
        reraise_from_handler(error)
        raise Unknown(f"a slot of the cluster is moving: {error}") from None
    return SchemaKeys(schema, frozenset(shard for shard, exists in enumerate(stamps) if exists))


def _has_schema_key(context: Context) -> Query[bool | None]:
    """Return whether the schema key exists; ``None`` if its slot is moving."""
    nodes: list[str] = yield ListNodes()
    for node in nodes:
        try:
            (exists,) = yield from gather(context, [(node, _exists(context.schema.schema_key))])
        except RedirectedError as error:  # noqa: PERF203 - another node has its slot
            reraise_from_handler(error)
        else:
            return exists
    return None


def _exists(key: bytes) -> Query[bool]:
    command = (b"EXISTS", key)
    # As `encoded`, it is not sent again while a slot is moving.
    encoded = encoding.command(*command)
    (reply,) = yield Request([command], tolerant=True, changes=True, encoded=encoded)
    if isinstance(reply, CommandError):
        raise Unknown(refusal_text("EXISTS", reply))
    return bool(reply)
