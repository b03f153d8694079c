"""The command line of ``python -m tallymark.migrate``."""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import TYPE_CHECKING, Any, Final

from .._core.untrusted import escaped, shown
from .._core.user_ids import TYPES_BY_NAME
from .._redis.url_sources import url_in
from .._sync.tally import SyncTally
from ..errors import InvalidValueError, TallymarkError, WrongSchemaError
from ._copier import Copier

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.urls import StoreUrl
    from ._copier import Migration, Progress

__all__ = ["exit_code", "main", "run", "summary"]

#: `ps` shows the arguments of all processes to every user of the machine.
_URL_SOURCES: Final = (
    "or env:NAME or file:PATH to read the URL from a variable or a file, since ps shows arguments"
)

#: How many seconds a request may take: large bitmaps are on their way.
_TIMEOUT: Final = 60.0

#: How many keys of each kind the summary lists.
_LISTED_KEYS: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the migration that the command line describes.

    Arguments:
        arguments: the command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit status: 0 if all was copied and all counts agree, 1 if not, 2 if the
        migration failed.
    """
    options = _parse(_parser(), arguments)
    del arguments  # error reporters show the locals of frames
    if options.user_ids is None and (options.ids is not None or options.skip_unmapped):
        _parser().error("--ids and --skip-unmapped need --user-ids")
    try:
        migration = run(**vars(options))
    except WrongSchemaError as error:
        print(  # noqa: T201
            f"{type(error).__name__}: {error} (--source-shards N or none, --shards N or none, "
            "--user-ids TYPE)",
            file=sys.stderr,
        )
        return 2
    except TallymarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except OSError as error:
        print(f"the file of --ids cannot be read ({type(error).__name__})", file=sys.stderr)  # noqa: T201
        return 2
    print(summary(migration))  # noqa: T201 - this is a program
    return exit_code(migration, has_pairs=bool(options.ids), skip_unmapped=options.skip_unmapped)


def run(
    *,
    source: StoreUrl,
    target: StoreUrl,
    source_shards: int | None,
    shards: int | None,
    prefix: str,
    target_prefix: str | None,
    user_ids: type[Any] | None,
    ids: str | None,
    skip_unmapped: bool,
    exact: bool,
    quiet: bool,
    timeout: float = _TIMEOUT,
) -> Migration:
    """Run a migration, and print its progress.

    Arguments:
        source, target: the URLs of the old and of the new database.
        source_shards, shards: the numbers of shards of the two; ``None`` for none.
        prefix, target_prefix: the prefixes of the two; ``None`` for the same.
        user_ids: the type of the user ids; without ``ids``, of both databases.
        ids, skip_unmapped, exact: as for `tallymark.migrate.migrate`.
        quiet: whether to print no progress.
        timeout: how many seconds a request may take.

    Returns:
        The result.

    Raises as `tallymark.migrate.migrate`.
    """
    urls: tuple[Any, Any] = source, target  # `from_url` takes these like a str
    with (
        SyncTally.from_url(
            urls[0],
            prefix=prefix,
            shards=source_shards,
            user_ids=user_ids if ids is None else None,
            timeout=timeout,
        ) as old,
        SyncTally.from_url(
            urls[1],
            prefix=prefix if target_prefix is None else target_prefix,
            shards=shards,
            user_ids=user_ids,
            timeout=timeout,
        ) as new,
    ):
        if shards is None and new.backend.context.schema.shards:
            raise InvalidValueError("a cluster cannot do without shards")
        copier = Copier(old, new, ids=ids, skip_unmapped=skip_unmapped, exact=exact)
        return copier.run(None if quiet else _print_progress)


def exit_code(migration: Migration, *, has_pairs: bool, skip_unmapped: bool) -> int:
    """Return 0 if all was copied and all counts agree, and 1 if not.

    Arguments:
        migration: the result of `run`.
        has_pairs: whether there was a file with ids.
        skip_unmapped: whether users who are not in the file were to be left out.
    """
    # Without a dictionary in the old database, users who came during the migration.
    is_incomplete = bool(migration.unmapped and has_pairs and not skip_unmapped)
    return 1 if migration.differing or migration.skipped or is_incomplete else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tallymark.migrate",
        description="Copy a database into another one, with or without shards.",
        exit_on_error=False,
        allow_abbrev=False,  # argparse's message would repeat an ambiguous argument
    )
    parser.add_argument(
        "source", type=_store_url, help="the URL of the old database; " + _URL_SOURCES
    )
    parser.add_argument(
        "target",
        type=_store_url,
        help="the URL of the new database, such as redis+cluster://host; " + _URL_SOURCES,
    )
    parser.add_argument(
        "--source-shards",
        type=_shards,
        metavar="N",
        help="the number of shards of the old database, or none (default: none; on a cluster 16)",
    )
    parser.add_argument(
        "--shards",
        type=_shards,
        default=16,
        metavar="N",
        help="the number of shards of the new database, or none (default: 16)",
    )
    parser.add_argument(
        "--prefix",
        type=_prefix,
        default="trackist_",
        help="the prefix of all keys (default: trackist_)",
    )
    parser.add_argument(
        "--target-prefix",
        type=_prefix,
        help="the prefix in the new database (default: that of --prefix)",
    )
    parser.add_argument(
        "--user-ids",
        type=_user_ids,
        metavar="TYPE",
        help="the type of the user ids: uuid, str, int or bytes; without --ids, of both databases",
    )
    parser.add_argument(
        "--ids",
        metavar="FILE",
        help="a CSV file with two columns: the number of a user in the old database, which has "
        "no ids of this type, and the id in the new one",
    )
    parser.add_argument(
        "--skip-unmapped", action="store_true", help="leave out users who are not in the file"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="also clear bits that only the new database has, in bitmaps that both have",
    )
    parser.add_argument("--quiet", action="store_true", help="print the result only")
    return parser


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, or exit with a message that repeats no argument.

    argparse's own messages repeat arguments, and one in the wrong place may be a URL with a
    password.
    """
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        problem = "source and target are needed"
        if error.argument_name is not None:
            ours = isinstance(error.__context__, argparse.ArgumentTypeError)
            why = error.__context__ if ours else "no value, or one that it does not take"
            problem = f"argument {error.argument_name}: {why}"
        parser.error(problem)
    if unknown:
        parser.error("there are too many arguments, or unknown ones")
    return options


def _store_url(argument: str) -> StoreUrl:
    """Return the URL in an argument, or in the variable or the file that the argument names."""
    try:
        return url_in(argument)
    except InvalidValueError as error:
        problem = str(error)
    raise argparse.ArgumentTypeError(problem)


def _shards(text: str) -> int | None:
    """Return the number of shards in an argument; None for ``none``."""
    try:
        return None if text == "none" else int(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("a number or 'none'")


def _user_ids(text: str) -> type:
    """Return the type of user ids with the name in an argument."""
    if text not in TYPES_BY_NAME:
        raise argparse.ArgumentTypeError("uuid, str, int or bytes")
    return TYPES_BY_NAME[text]


def _prefix(text: str) -> str:
    """Return the prefix in an argument, but no URL, since error messages show prefixes."""
    if "://" in text:
        raise argparse.ArgumentTypeError("what keys begin with, not a URL")
    return text


def _print_progress(progress: Progress) -> None:
    rate = progress.users / progress.seconds if progress.seconds else 0.0
    print(  # noqa: T201 - this is a program
        f"{progress.bitmaps:,} of {progress.total:,} bitmaps, {progress.users:,} users, "
        f"{rate:,.0f} a second",
        file=sys.stderr,
    )


def summary(migration: Migration) -> str:
    """Return the result of a migration for people, in lines."""
    result = (
        f"{migration.bitmaps:,} bitmaps, {migration.users:,} users, in "
        f"{migration.seconds:.1f} s: {migration.unchanged:,} were there already, "
        f"{migration.written:,} bits written, {migration.empty:,} others without users, "
        f"{len(migration.differing):,} differ"
    )
    lines = [result]
    for key, (old, new) in itertools.islice(migration.differing.items(), _LISTED_KEYS):
        lines.append(f"  {escaped(key)}: {old:,} users in the old database, {new:,} in the new one")
    lines += [
        f"  {escaped(key)}: holds no bitmap, not copied" for key in migration.skipped[:_LISTED_KEYS]
    ]
    if migration.unmapped:
        lines.append(f"  {migration.unmapped:,} bits of users without an id: not copied")
    if migration.temporary:
        number = len(migration.temporary)
        keys = "1 key looks like a result" if number == 1 else f"{number:,} keys look like results"
        lines.append(f"  {keys} of bitmapist, such as {shown(migration.temporary[0])}: not copied")
    return "\n".join(lines)
