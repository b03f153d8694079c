"""The command that copies a database into another one."""

from pathlib import Path
from typing import Any

from .._core.keys import DEFAULT_PREFIX
from .._redis.url_sources import url_in
from ._errors import UsageError
from ._invocation import Run

__all__ = ["migrate"]


def migrate(
    source: str,
    target: str,
    /,
    *,
    source_shards: str = "none",
    target_shards: str = "16",
    target_prefix: str | None = None,
    ids: Path | None = None,
    skip_unmapped: bool = False,
    exact: bool = False,
    quiet: bool = False,
    run: Run,
) -> int:
    """Copy a database into another one, with or without shards, while marks go on.

    The exit code is 1 if counts differ. docs/scale.md describes how to switch over.

    For example:

      tallymark migrate redis://old:6379/0 redis+cluster://new:6379
      tallymark migrate env:OLD env:NEW --user-ids uuid --ids ids.csv

    Arguments:
        source: the URL of the old database; or env:NAME, file:PATH
        target: the URL of the new database; or env:NAME, file:PATH
        source_shards: the number of shards of the old database, or none
        target_shards: the number of shards of the new database, or none
        target_prefix: the prefix of the new database, if it is another one
        ids: a CSV file with the number and the id of each user (see docs/user-ids.md)
        skip_unmapped: leave out users who are not in the file
        exact: also clear bits that only the new database has
        quiet: print the result only
    """
    urls = url_in(source, "SOURCE: "), url_in(target, "TARGET: ")
    del source, target  # error reporters show the locals of frames
    if "shards" in run.store.options:
        raise UsageError("migrate has --source-shards and --target-shards instead of --shards")
    if run.store.user_ids is None and (ids is not None or skip_unmapped):
        raise UsageError("--ids and --skip-unmapped need --user-ids")
    from ..migrate._cli import run as copy  # noqa: PLC0415 - no other command needs it

    return copy(
        source=urls[0],
        target=urls[1],
        source_shards=_shards("--source-shards", source_shards),
        shards=_shards("--target-shards", target_shards),
        prefix=run.store.options.get("prefix", DEFAULT_PREFIX),
        target_prefix=target_prefix,
        user_ids=run.store.id_type,
        ids=None if ids is None else str(ids),
        skip_unmapped=skip_unmapped,
        exact=exact,
        quiet=quiet,
    )


def _shards(option: str, text: str) -> Any:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise UsageError(f"{option} takes a number or none")
    return int(text)
