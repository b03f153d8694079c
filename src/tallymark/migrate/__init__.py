"""Copy a database into another one, with or without shards, while marks go on.

On the command line: ``python -m tallymark.migrate redis://old:6379/0 redis+cluster://new:6379``.
In Python: `migrate`. docs/how-to/migrate.md describes how to switch over without losing a mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._core.untrusted import kind_of
from ..errors import InvalidTypeError
from ._cli import main
from ._copier import Copier, Migration, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._sync.tally import SyncTally
    from ._pairs import IdSource

__all__ = ["Migration", "Progress", "main", "migrate"]


def migrate(
    source: SyncTally[Any],
    target: SyncTally[Any],
    *,
    ids: IdSource | None = None,
    skip_unmapped: bool = False,
    exact: bool = False,
    progress: Callable[[Progress], object] | None = None,
) -> Migration:
    """Copy all bitmaps of one database into another one.

    Each of the two may have shards or none, any prefix, and be on a server or a cluster;
    the numbers of shards may differ. Source and target may also be two prefixes of one
    database, unless one prefix begins with the other.

    If the target has the option ``user_ids``, so has the source, with the same type; or
    ``ids`` says which number of the source is which id. The users get numbers of their own in
    the target's dictionary. A program that forgets users meanwhile forgets them in the source
    first, and then in the target.

    Marks may go on during the migration if the program writes each of them to both
    databases, first to the source and then to the target. The target is compared with the
    source after each write until both agree, so neither a mark nor an unmark is lost. Only
    bits that differ are written, so an interrupted migration is simply run again. After
    each group of bitmaps, the users of each bitmap are counted on both sides.

    The expiry (TTL) of a bitmap is copied, unless the target has a later one. Results that
    bitmapist has left are not copied: see `Migration.temporary`. If the source has a second
    prefix that begins with this one, all keys of the longer prefix are events of the
    shorter one, and are copied too.

    Arguments:
        source: a tally on the old database. Nothing is written there.
        target: a tally on the new database.
        ids: for a source without ``user_ids`` and a target with them: the number and the id
            of each user, as a mapping of numbers to ids, as an iterable of pairs, or as the
            path of a CSV file with two columns (UTF-8; a first line without a number is the
            names of the columns; bytes in hexadecimal digits). All of these users get a
            number in the target's dictionary. A pair takes some 60 bytes of memory, and its id.
        skip_unmapped: leave out numbers that have a bit and no id. By default they are an
            error, except those that come during the migration.
        exact: also clear bits that only the target has, in the bitmaps that the source
            has, and copy earlier expiries too. By default the migration clears only bits
            that it has set itself, so that a target in use loses nothing.
        progress: called with a `Progress` after each group of bitmaps.

    Returns:
        A `Migration`; its ``differing`` is empty if all counts agree.

    Raises:
        InvalidTypeError, InvalidValueError: the arguments are not two blocking tallies, one
            of them has the option ``read_from``, their ``user_ids`` do not fit, or keys of
            one would be events of the other: nothing was written. Or one of the ``ids`` is
            not allowed, a number has two ids or an id two numbers, or numbers with a bit
            have none: nothing was written, and the message says which. Or a user is above
            the ``max_user_id`` of the target.
        WrongSchemaError: a tally has another number of shards or other ``user_ids`` than its
            database; nothing was written.
        OSError: the file of the ``ids`` cannot be read; nothing was written.
        WrongKeyTypeError: a key of the target holds no string.
        StoreError: one of the databases failed; run the migration again. With ``user_ids``
            also if a failover has lost numbers that the migration has used.

    Interrupted: the bitmaps copied so far stay in the target.
    """
    if progress is not None and not callable(progress):
        raise InvalidTypeError(f"progress must be callable, got a {kind_of(progress)}")
    return Copier(source, target, ids=ids, skip_unmapped=skip_unmapped, exact=exact).run(progress)
