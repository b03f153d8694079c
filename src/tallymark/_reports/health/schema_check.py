"""The check that a tally's shards and user ids are those of the database. Pure.

Before its first command, a tally compares them with the schema key. But a database without shards
and ``user_ids`` has no such key, and that of another one may have been deleted or evicted, or
written after the comparison. So the check also looks at the other keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..._core.untrusted import shown
from .checks import Verdict, ok, plural
from .servers import Unknown

if TYPE_CHECKING:
    from .checks import Subject
    from .samples import Sample
    from .schema_keys import SchemaKeys

__all__ = ["judge_schema"]

_OPTIONS: Final = "pass the shards and user_ids with which the marks were made, or another prefix"


def judge_schema(subject: Subject) -> Verdict:
    """Return the verdict of the check."""
    if subject.mismatch:
        return Verdict(
            "problem", subject.mismatch, "pass the same shards and user_ids, or another prefix"
        )
    keys = subject.schema_keys
    if isinstance(keys, Unknown):
        raise keys
    return _judge_keys(subject, keys) or _judge_sample(subject, has_key=keys.schema)


def _judge_keys(subject: Subject, keys: SchemaKeys) -> Verdict | None:
    """Return a problem that single keys show, if there is one."""
    schema = subject.schema
    if schema.stored is None and keys.schema:
        seen = f"there is the key {_name(subject)}: the database has shards or user_ids"
        return Verdict("problem", seen, _OPTIONS)
    if schema.user_ids is None:
        if keys.stamped:
            seen = "the database has a dictionary of user ids, and this tally no user_ids"
            return Verdict("problem", seen, _OPTIONS)
        return None
    if subject.keys.shards <= keys.stamped:
        return None
    return Verdict(
        "problem",
        "there are bitmaps, and no dictionary of user ids: nobody without a number can be marked",
        f"{_OPTIONS}; or keys of the dictionary were deleted or evicted: see eviction",
    )


def _judge_sample(subject: Subject, *, has_key: bool | None) -> Verdict:
    """Return what the bitmaps show.

    Arguments:
        subject: what is examined.
        has_key: whether the schema key exists; ``None`` if that is not known.
    """
    sample, stored = subject.keys, subject.schema.stored
    seen = _other_shards(subject, sample)
    if seen:
        # Without shards, these may be events whose names begin with a brace. With the schema key,
        # the bitmaps of the tally itself are all right.
        certain = stored is not None and not has_key
        return Verdict("problem" if certain else "warning", seen, _OPTIONS)
    if stored is None:
        return ok("bitmapist's format")
    if has_key is not False:
        return ok(f"as in the database: {stored}")
    if not sample.found:
        return ok(f"no bitmap yet; the first mark sets {stored}")
    return Verdict(
        "warning",
        f"the key {_name(subject)} is missing: nothing refuses a tally with other shards or ids",
        "the next tally that marks writes it again; it was deleted or evicted: see eviction",
    )


def _name(subject: Subject) -> str:
    return shown(subject.schema.schema_key.decode())


def _other_shards(subject: Subject, sample: Sample) -> str:
    """Return how many bitmaps are of other shards; empty if none is."""
    parts = []
    if sample.unsharded:
        parts.append(f"{plural(sample.unsharded, 'bitmap')} of the sample without shards")
    if sample.tagged:
        parts.append(f"{plural(sample.tagged, 'bitmap')} of the sample with a tag of other shards")
    if not parts:
        return ""
    shards = subject.schema.shards
    own = "no shards" if shards is None else f"shards={shards}"
    return f"there are {' and '.join(parts)}, and this tally has {own}: it does not see their users"
