"""Queries that change the bits of one user in all bitmaps: `forget` and `merge`. Pure.

Both scan the keys of the user's shard, read the user's bit in the bitmaps of each step, and
change those bitmaps in which it is set. So no key is created and no bitmap gets longer where
the user has no bit. Every change may be repeated, after a fault too.

With a dictionary of user ids, `tallymark._reading.forgetting` has these queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.failures import copied
from .._core.untrusted import reraise_from_handler
from ..errors import InvalidValueError, StoreError
from . import forgetting
from .bit_changes import READ, Bit, in_shard, keys_with, most_changed, move, move_to_shard
from .key_scan import KeyScan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._core.context import Context
    from ..errors import WrongKeyTypeError
    from .requests import Query

__all__ = ["forget", "merge"]


def forget(context: Context, user_id: Any) -> Query[int]:
    """Clear a user's bit in all bitmaps; return how many bits were set."""
    if context.schema.dictionary is not None:
        return (yield from forgetting.forget(context, context.schema.dictionary, user_id))
    bit = Bit(*context.schema.place(user_id))

    def clear(keys: Sequence[bytes]) -> Query[list[int]]:
        return in_shard(context, bit.shard, move(context, keys, bit.digits))

    return (yield from _change_all(context, bit, clear, most_changed(bit), "cleared"))


def merge(context: Context, source: Any, target: Any) -> Query[int]:
    """Move all bits of a user to another user; return how many bits of the source were set.

    Arguments:
        context: the database.
        source: the id of the user who will have no bit.
        target: the id of the user who gets the bits.

    Raises:
        InvalidTypeError, InvalidValueError: an id is not allowed, or both are the same.
        WrongKeyTypeError: in the shard of the target, a key has another type than a bitmap.
            All other bits were moved.
    """
    if context.schema.dictionary is not None:
        return (yield from forgetting.merge(context, context.schema.dictionary, source, target))
    from_bit = Bit(*context.schema.place(source))
    to_bit = Bit(*context.schema.place(target))
    if from_bit == to_bit:
        raise InvalidValueError(
            f"source and target must be different users, got {context.schema.offset(source)} twice"
        )
    refusals: list[WrongKeyTypeError] = []

    def change(keys: Sequence[bytes]) -> Query[list[int]]:
        if from_bit.shard != to_bit.shard:
            return move_to_shard(context, keys, from_bit, to_bit, refusals)
        query = move(context, keys, from_bit.digits, to_bit.digits)
        return in_shard(context, from_bit.shard, query)

    most = most_changed(from_bit, to_bit)
    moved = yield from _change_all(context, from_bit, change, most, "moved")
    if refusals:
        raise copied(
            refusals[0],
            f"{refusals[0]}; {len(refusals)} bits stay where they are, {moved} others were moved",
        )
    return moved


def _change_all(
    context: Context,
    bit: Bit,
    change: Callable[[Sequence[bytes]], Query[list[int]]],
    most: int,
    verb: str,
) -> Query[int]:
    """Change all bitmaps that have a bit, in steps; return how many were changed.

    Arguments:
        context: the database.
        bit: the bit.
        change: changes the bitmaps with some keys, and returns how many had the bit, as `move`.
        most: how many keys ``change`` gets at most.
        verb: what has been done with the bits, for errors.

    Raises:
        StoreError: there was a failure; the message says how far the query had come.
    """
    changed, begun = 0, False
    scan = KeyScan(context, shard=bit.shard, with_temporary=True, changes=True)
    try:
        while scan.has_more:
            found = [bitmap.key for bitmap in (yield from scan.next())]
            for at in range(0, len(found), READ):
                query = keys_with(found[at : at + READ], bit.digits)
                keys, _ = yield from in_shard(context, bit.shard, query)
                for begin in range(0, len(keys), most):
                    begun = True
                    changed += sum((yield from change(keys[begin : begin + most])))
    except StoreError as error:
        reraise_from_handler(error)
        if not begun:
            raise
        progress = f"{changed} bits were {verb} before, and others may have been: call it again"
        raise copied(error, f"{error}; {progress}") from error.__cause__
    return changed
