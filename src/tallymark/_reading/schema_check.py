"""The check that a database's bitmaps are of the schema of a tally, where it has stored none. Pure.

Before its first command, a tally compares its shards and the type of its ids with the schema key.
A database in bitmapist's format has no such key, like an empty one, so a tally with shards or
``user_ids`` is not refused, and finds no bitmaps there, or users without ids. To tell both apart
takes a scan of all keys. Exports and migrations do that: an empty copy may replace a good one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .._core.keys import KeySchema
from .._core.untrusted import shown
from ..errors import WrongSchemaError
from .key_scan import KeyScan
from .requests import ListNodes, Request

if TYPE_CHECKING:
    from .._core.context import Context
    from .requests import Query

__all__ = ["check_schema"]


def check_schema(context: Context) -> Query[None]:
    """Raise if the bitmaps were made without shards or user ids, and the tally has them.

    Sends one ``EXISTS``; only if there is no schema key, also scans the keys for such a bitmap.

    Raises:
        WrongSchemaError: there is one.
    """
    schema = context.schema
    if schema.stored is None:
        return
    nodes: list[str] = yield ListNodes()
    if nodes != [""]:  # every database on a cluster has shards
        return
    if (yield from _is_marked(context)) or not (yield from _has_plain_bitmap(context)):
        return
    if (yield from _is_marked(context)):  # the first mark was made meanwhile
        return
    if schema.shards is not None:
        raise WrongSchemaError(
            f"the database has bitmaps without shards for the prefix {shown(schema.prefix)}, and "
            f"this tally has shards={schema.shards}; pass shards=None, or another prefix"
        )
    raise WrongSchemaError(
        f"the database has bitmaps without user_ids for the prefix {shown(schema.prefix)}, and "
        "this tally has user_ids; pass user_ids=None, or another prefix"
    )


def _is_marked(context: Context) -> Query[bool]:
    """Return whether a tally with shards or user ids has marked in the database.

    If the schema key was evicted, a dictionary still has its stamp.
    """
    schema = context.schema
    keys = [schema.schema_key]
    if schema.dictionary is not None:
        keys.append(schema.dictionary.key(0, "stamp"))
    (count,) = yield Request([(b"EXISTS", *keys)])
    return bool(count)


def _has_plain_bitmap(context: Context) -> Query[bool]:
    """Return whether there is a bitmap of bitmapist's format."""
    scan = KeyScan(replace(context, schema=KeySchema(context.schema.prefix)))
    while scan.has_more:
        for bitmap in (yield from scan.next()):
            if not bitmap.event.startswith("{"):  # the tag of a shard
                return True
    return False
