"""What the replies to the commands of a mark mean for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.failures import copied, unexpected_reply
from .._core.untrusted import escaped, reraise_from_handler, shown
from ..errors import CommandError
from .marks import flipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .marks import Bitmaps, Result

__all__ = [
    "bit_result",
    "checked_bits",
    "checked_list",
    "explained",
    "has_bit",
    "parse_expiry",
    "result_of",
    "retriable",
]


def bit_result(bitmaps: Bitmaps, value: int, old_bits: Sequence[Any]) -> Result:
    """Return the result of a mark.

    Arguments:
        bitmaps: the bitmaps that it writes to.
        value: the value that it writes.
        old_bits: the reply to the mark in each bitmap, unchecked.
    """
    try:
        return bitmaps.flips[value][tuple(old_bits)]
    except (KeyError, TypeError) as error:  # a TypeError if a reply is not hashable
        reraise_from_handler(error)
        bits = checked_bits(old_bits, len(bitmaps.keys))
        changes = [bit if isinstance(bit, CommandError) else bit ^ value for bit in bits]
        return result_of(bitmaps, changes)


def checked_list(reply: Any, count: int) -> Sequence[Any]:
    """Return a reply that is a list of ``count`` items.

    Raises:
        StoreError: it is not.
    """
    if not isinstance(reply, list | tuple) or len(reply) != count:
        raise unexpected_reply(reply)
    return reply


def checked_bits(reply: Any, count: int) -> Sequence[int | CommandError]:
    """Return a reply that is a list of ``count`` bits or errors.

    Raises:
        StoreError: it is not.
    """
    for bit in checked_list(reply, count):
        if not isinstance(bit, CommandError) and bit not in (0, 1):
            raise unexpected_reply(reply)
    checked: Sequence[int | CommandError] = reply
    return checked


def result_of(bitmaps: Bitmaps, changes: Sequence[int | CommandError]) -> Result:
    """Return a mark's result.

    Arguments:
        bitmaps: the mark's bitmaps.
        changes: for each bitmap, 1 if the bit was flipped, 0 if not, or an error.
    """
    flips = flipped(bitmaps.granularities, changes)
    for key, change in zip(bitmaps.keys, changes, strict=True):
        if isinstance(change, CommandError):
            return explained(
                change,
                f"{escaped(key)} was not changed; flipped in the mark's other bitmaps: {flips}",
                applied=has_bit(changes),
            )
    return flips


def has_bit(replies: Any) -> bool:
    """Return whether any reply is not an error, so that its command was applied."""
    return not isinstance(replies, CommandError) and any(
        not isinstance(reply, CommandError) for reply in replies
    )


def explained(error: CommandError, reason: str, *, applied: bool = False) -> CommandError:
    """Return a new error of the same class, whose message also says what it means for a mark.

    Arguments:
        error: the server's error.
        reason: what the error means for the mark.
        applied: whether another part of the mark was applied, or may have been.
    """
    explanation = copied(error, f"{reason} ({error})")
    explanation._may_be_applied = applied  # noqa: SLF001
    return explanation


def retriable(refusal: CommandError) -> CommandError:
    """Return the error of a mark that was refused only because of another one."""
    reason = "nothing was applied: another mark of the transaction was refused"
    error = explained(refusal, reason)
    error._is_retriable = True  # noqa: SLF001
    return error


def parse_expiry(
    bitmaps: Bitmaps, indexes: Iterable[int], results: list[Result], replies: Sequence[Any]
) -> None:
    """Replace results by errors if a reply to an ``EXPIREAT`` is an error.

    Arguments:
        bitmaps: the bitmaps of the marks.
        indexes: the indexes of the marks.
        results: their results, and those of other marks.
        replies: the replies to the commands that set the expiry.
    """
    for reply in replies:
        if isinstance(reply, CommandError):
            reason = f"marks of {shown(bitmaps.event)} are written, but a bitmap has no end"
            for index in indexes:
                if not isinstance(results[index], CommandError):
                    results[index] = explained(reply, reason, applied=True)
            return
        if reply not in (0, 1):
            raise unexpected_reply(reply)
