"""The command that copies a database into another one."""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from .._core.keys import DEFAULT_PREFIX
from .._redis.url_sources import url_in
from ._errors import NO, UsageError
from ._invocation import Run
from ._store import shards_of

__all__ = ["migrate"]

#: The number of shards of the new database by default.
_SHARDS: Final = 16

#: The options of a tally that a migration takes, and how others are called here.
_TAKEN: Final = frozenset(("prefix", "shards", "timeout"))
_NAMES: Final = {"track_yearly": "yearly"}


def migrate(
    source: str,
    target: str,
    /,
    *,
    source_shards: str | None = None,
    target_prefix: str | None = None,
    ids: Path | None = None,
    skip_unmapped: bool = False,
    exact: bool = False,
    quiet: bool = False,
    run: Run,
) -> int:
    """Copy a database into another one while marks go on: docs/how-to/migrate.md.

    --shards is of the new database: 16 by default, or none. The exit code is 1 if counts differ.
    --exact asks before.

    For example:

      tallymark migrate redis://old:6379/0 redis+cluster://new:6379 --shards 64
      tallymark migrate env:OLD env:NEW --user-ids uuid --ids ids.csv

    Arguments:
        source: the old database: a URL, env:NAME or file:PATH
        target: the new database: a URL, env:NAME or file:PATH
        source_shards: of the old database (default: none; clusters: 16)
        target_prefix: of the new database (default: that of --prefix)
        ids: a CSV file with a number and an id on each line
        skip_unmapped: leave out users who are not in the file
        exact: also clear what only TARGET has in bitmaps of both
        quiet: print the result only
    """
    urls = url_in(source, "SOURCE: "), url_in(target, "TARGET: ")
    del source, target  # error reporters show the locals of frames
    options = run.store.options
    other = [f"--{_NAMES.get(name, name.replace('_', '-'))}" for name in options.keys() - _TAKEN]
    if other:
        raise UsageError(f"migrate does not take {', '.join(sorted(other))}")
    if run.store.user_ids is None and (ids is not None or skip_unmapped):
        raise UsageError("--ids and --skip-unmapped need --user-ids")
    if target_prefix is not None and "://" in target_prefix:  # messages show prefixes
        raise UsageError("--target-prefix is what keys begin with, not a URL")
    old_shards = None if source_shards is None else shards_of("--source-shards", source_shards)
    for url in urls:
        url.address  # noqa: B018 - raises, before the question
    if exact and not run.confirm("clear bits that only the new database has"):
        return NO
    from ..migrate._cli import exit_code, summary  # noqa: PLC0415 - no other command needs it
    from ..migrate._cli import run as copy  # noqa: PLC0415

    limits = {"timeout": options["timeout"]} if "timeout" in options else {}
    migration = copy(
        source=urls[0],
        target=urls[1],
        source_shards=old_shards,
        shards=options.get("shards", _SHARDS),
        prefix=options.get("prefix", DEFAULT_PREFIX),
        target_prefix=target_prefix,
        user_ids=run.store.id_type,
        ids=None if ids is None else str(ids),
        skip_unmapped=skip_unmapped,
        exact=exact,
        quiet=quiet,
        **limits,
    )
    row = asdict(migration)
    row |= {name: len(row[name]) for name in ("differing", "skipped", "temporary")}
    run.output.answer(row, summary(migration))
    return exit_code(migration, has_pairs=ids is not None, skip_unmapped=skip_unmapped)
