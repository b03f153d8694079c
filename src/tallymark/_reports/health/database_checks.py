"""Checks of a database: rights, schema, and a sample of its keys. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ..._core.expiry import Expiry
from ..._core.periods import Granularity
from ..._core.untrusted import shown
from .checks import Check, Verdict, in_bytes, ok, plural
from .schema_check import judge_schema
from .servers import Unknown, refusal_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .checks import Subject
    from .samples import Sample, SampledBitmap

__all__ = ["DATABASE_CHECKS"]

_GRANT: Final = "ACL SETUSER, with the rights that docs/how-to/connect.md lists"

#: The types of the keys that hold a bitmap: a string, or a Roaring bitmap of Redis 8.12.
_STRING: Final = "string"
_NATIVE: Final = frozenset(("bitmap", "roaring"))

#: Bitmaps that are longer take long to copy, to send and to combine.
_BIG: Final = 64 * 1024**2

#: A bitmap is mostly zeros if it has more bytes than this for each of its users. A short one
#: does not matter.
_BYTES_PER_USER: Final = 8
_SHORT: Final = 4096

#: How much has to be wasted for a word: in bytes of the sample, and as a share of it.
_WASTE: Final = 1024**2
_SHARE: Final = 0.5

#: How many names a finding has.
_NAMES: Final = 3

#: How many characters more than a prefix another one may have.
_LONGEST: Final = 64

#: How many events two prefixes have to have in common, and which share of them.
_COMMON: Final = 2
_COMMON_SHARE: Final = 0.8

#: By how many seconds an expiry may differ, beside the difference of the clocks.
_TOLERANCE: Final = 5


def _rights(subject: Subject) -> Verdict:
    if subject.refusal:
        return Verdict("problem", f"every call is refused: {subject.refusal}", _GRANT)
    if isinstance(subject.missing, Unknown):
        raise subject.missing
    if not subject.missing:
        return ok("this Redis user may use all commands that the tally needs")
    unknown = any(right.unknown for right in subject.missing)
    seen = "; ".join(
        f"{right.command} {'is unknown' if right.unknown else 'is denied'} ({right.verbs})"
        for right in subject.missing
    )
    advice = (
        "use Redis or Valkey; bitfield=False is for servers without scripts and BITFIELD"
        if unknown
        else _GRANT
    )
    vital = any(right.vital for right in subject.missing)
    return Verdict("problem" if vital else "warning", seen, advice)


def _key_types(subject: Subject) -> Verdict:
    bitmaps = _bitmaps(subject, "TYPE")
    other = [each for each in bitmaps if each.kind not in {"", _STRING, *_NATIVE}]
    if other:
        kinds = ", ".join(sorted({each.kind for each in other}))
        return Verdict(
            "problem",
            f"{_of(len(other), bitmaps)} hold something else ({kinds}): {_keys(other)}",
            "rename or delete these keys: marks of these events and periods fail",
        )
    return ok(f"the keys of {len(bitmaps)} bitmaps hold bitmaps")


def _native(subject: Subject) -> Verdict:
    bitmaps = _bitmaps(subject, "TYPE")
    native = [each for each in bitmaps if each.kind in _NATIVE]
    switched = not isinstance(subject.servers, Unknown) and any(
        server.config.get("bitmap-default-roaring") == "yes" for server in subject.servers
    )
    if native or switched:
        seen = _of(len(native), bitmaps) + " are compressed (Roaring bitmaps of Redis)"
        if switched:
            seen += "; bitmap-default-roaring is yes, so new ones are"
        return Verdict(
            "problem",
            seen,
            "CONFIG SET bitmap-default-roaring no: GETRANGE, by which reports and lists read "
            "bitmaps, is refused for them",
        )
    return ok(f"none of {len(bitmaps)} bitmaps is compressed by Redis")


def _sparse(subject: Subject) -> Verdict:
    bitmaps = [each for each in _bitmaps(subject, "BITCOUNT") if each.kind in {"", _STRING}]
    total = sum(each.size for each in bitmaps)
    sparse = [each for each in bitmaps if each.size > max(_SHORT, _BYTES_PER_USER * each.users)]
    wasted = sum(each.size - each.users // 8 for each in sparse)
    seen = (
        f"{_of(len(sparse), bitmaps)} are mostly zeros: {in_bytes(wasted)} of {in_bytes(total)}"
        f"{_extrapolated(subject.keys, wasted)}"
    )
    if wasted > max(_WASTE, _SHARE * total):
        longest = max(sparse, key=lambda each: each.size)
        highest = longest.size * 8 * len(subject.schema.parts) - 1
        return Verdict(
            "warning",
            f"{seen}; the longest is {_keys([longest])}, with an id of about {highest}",
            "user_ids=int gives users consecutive numbers (tallymark.migrate moves marks); "
            "max_user_id refuses stray ids; rare events may be the reason, too: delete their "
            "days with delete_before",
        )
    return ok(seen)


def _big(subject: Subject) -> Verdict:
    bitmaps = _bitmaps(subject, "STRLEN")
    big = sorted((each for each in bitmaps if each.size > _BIG), key=lambda each: -each.size)
    if big:
        return Verdict(
            "warning",
            f"{_of(len(big), bitmaps)} are longer than {in_bytes(_BIG)}, up to "
            f"{in_bytes(big[0].size)}: {_keys(big)}",
            "shards= spreads users over several bitmaps; max_user_id refuses stray ids",
        )
    longest = max((each.size for each in bitmaps), default=0)
    return ok(f"the longest of {len(bitmaps)} bitmaps has {in_bytes(longest)}")


def _temporary(subject: Subject) -> Verdict:
    sample = subject.keys
    parts, advice = [], []
    if sample.results:
        parts.append(plural(sample.results, "result") + " of bitmapist")
        advice.append(
            "delete those of the prefix trackist_ with "
            "tallymark.bitmapist.delete_temporary_bitop_keys()"
        )
    if sample.endless:
        shortened = ", ".join(
            shown(key.decode(errors="replace")) for key in sample.endless[:_NAMES]
        )
        number = plural(len(sample.endless), "temporary key")
        parts.append(f"{number} of tallymark, such as {shortened}")
        advice.append("UNLINK these keys, if no call is running")
    if parts:
        return Verdict("warning", " and ".join(parts) + _sampled(sample), "; ".join(advice))
    return ok("no temporary key is left" + _sampled(sample))


def _expiry(subject: Subject) -> Verdict:
    lifetimes = subject.options.lifetimes
    if not lifetimes:
        raise Unknown("the tally has no option expire")
    expiry = Expiry(subject.options)
    servers = () if isinstance(subject.servers, Unknown) else subject.servers
    tolerance = _TOLERANCE + max((abs(server.ahead or 0) for server in servers), default=0)
    expiring = [each for each in _bitmaps(subject, "PTTL") if each.found.granularity in lifetimes]
    endless, other = [], []
    for each in expiring:
        end = expiry.time(each.found.period)
        if each.expires == math.inf:
            endless.append(each)
        elif each.expires is not None and abs(each.expires - end) > tolerance:
            other.append(each)
    if endless or other:
        seen = [
            f"{_of(len(found), expiring)} {what}"
            for found, what in ((endless, "never expire"), (other, "expire at another time"))
            if found
        ]
        return Verdict(
            "warning",
            f"{' and '.join(seen)}: {_keys(endless or other)}",
            "apply_expiry(dry_run=True), then apply_expiry(): marks set the expiry only on the "
            "bitmaps that they change",
        )
    return ok(f"{len(expiring)} bitmaps expire as the option says")


def _hours(subject: Subject) -> Verdict:
    bitmaps = _bitmaps(subject, "STRLEN")
    hours = [each for each in bitmaps if each.found.granularity is Granularity.HOUR]
    if Granularity.HOUR in subject.options.lifetimes:
        return ok(f"hours expire; {_of(len(hours), bitmaps)} are of hours")
    endless = [each for each in hours if each.expires == math.inf]
    size = sum(each.size for each in endless)
    seen = f"{_of(len(endless), bitmaps)} are of hours that never expire, {in_bytes(size)}"
    if endless:
        return Verdict(
            "warning",
            seen,
            "expire={'hour': timedelta(days=90)} for new ones, apply_expiry() for these; or "
            "delete_before(..., granularities='hour')",
        )
    return ok(seen)


def _prefixes(subject: Subject) -> Verdict:
    sample = subject.keys
    own = subject.schema.prefix
    found = {other for other in sample.markers if other.startswith(own) or own.startswith(other)}
    found |= {other for other, events in sample.shorter.items() if len(events) >= _COMMON}
    found |= {own + part for part in _longer(sample.events)}
    if found:
        names = ", ".join(shown(name) for name in sorted(found)[:_NAMES])
        return Verdict(
            "warning",
            f"beside {shown(own)} there seems to be the prefix {names}",
            "let no prefix begin with another one: see docs/how-to/prefixes.md",
        )
    return ok(f"no other prefix begins with {shown(own)}, or the other way round{_sampled(sample)}")


def _longer(events: set[str]) -> Iterable[str]:
    """Yield what seems to be the rest of a longer prefix: events have twins that begin with it."""
    twins: dict[str, int] = {}
    for event in events:
        for at in range(1, min(len(event), _LONGEST)):
            if event[at:] in events:
                twins[event[:at]] = twins.get(event[:at], 0) + 1
    frequent = sorted(twins, key=lambda part: -twins[part])[:_NAMES]
    for part in frequent:
        count = twins[part]
        others = sum(1 for event in events if not event.startswith(part))
        if count >= max(_COMMON, _COMMON_SHARE * others):
            yield part


def _bitmaps(subject: Subject, command: str) -> Sequence[SampledBitmap]:
    """Return the bitmaps of the sample, if a command was not refused. Raises `Unknown`."""
    sample = subject.keys
    if command in sample.refused:
        raise Unknown(refusal_text(command, sample.refused[command]))
    if not sample.bitmaps:
        raise Unknown("there are no bitmaps" + _sampled(sample))
    return sample.bitmaps


def _of(number: int, bitmaps: Sequence[Any]) -> str:
    return f"{number} of {len(bitmaps)} bitmaps"


def _keys(bitmaps: Sequence[SampledBitmap]) -> str:
    names = [shown(each.found.key.decode(errors="replace")) for each in bitmaps[:_NAMES]]
    return ", ".join(names) + (", ..." if len(bitmaps) > _NAMES else "")


def _sampled(sample: Sample) -> str:
    return "" if sample.complete else f" (of the first {sample.keys} keys)"


def _extrapolated(sample: Sample, size: float) -> str:
    """Return an estimate for all bitmaps that were found, if only some were looked at."""
    if sample.found <= len(sample.bitmaps):
        return ""
    return f", so about {in_bytes(size * sample.found / len(sample.bitmaps))} of {sample.found}"


DATABASE_CHECKS: Final = (
    Check("rights", "a verb whose commands are denied raises an error", _rights),
    Check(
        "schema",
        "with other shards, or other ids, a tally sees other bits than those of the users",
        judge_schema,
    ),
    Check("key types", "a key of another type makes marks and reads of it fail", _key_types),
    Check(
        "native bitmaps",
        "Redis 8.12 can compress bitmaps, and refuses some commands for these",
        _native,
    ),
    Check("sparse ids", "a bitmap has a bit for each id up to the largest", _sparse),
    Check("big keys", "long bitmaps take long to send, to combine and to copy", _big),
    Check("temporary keys", "what a broken client has left takes memory", _temporary),
    Check(
        "expiry",
        "bitmaps from before the option expire, or with another value, stay as they are",
        _expiry,
    ),
    Check("hours", "an event has 8,760 bitmaps of hours a year", _hours),
    Check(
        "prefixes",
        "the tally of the shorter prefix also lists, forgets and deletes what is the other's",
        _prefixes,
    ),
)
