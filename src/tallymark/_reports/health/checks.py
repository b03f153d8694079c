"""What a check is, and how one judges several servers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from .diagnosis import Finding
from .servers import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..._core.keys import KeySchema
    from ..._core.options import Options
    from .diagnosis import Status
    from .rights import Right
    from .samples import Sample
    from .schema_keys import SchemaKeys
    from .servers import ServerFacts

__all__ = ["Check", "Subject", "Verdict", "each_server", "in_bytes", "ok", "plural", "run"]

#: How bad a status is.
_RANKS: Final[dict[Status, int]] = {"skipped": 0, "ok": 1, "warning": 2, "problem": 3}

#: How many nodes a finding names.
_NODES: Final = 3

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Verdict(NamedTuple):
    """What a check has seen: the changing part of a `Finding`."""

    status: Status
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Subject:
    """What is examined. Facts that are not known are an `Unknown`.

    Attributes:
        options, schema: those of the tally.
        servers: the servers that have marks.
        replica: the replica from which the tally reads; ``None`` if it reads from no other.
        sample: a sample of the keys.
        missing: the commands that are refused.
        schema_keys: which keys show the schema.
        mismatch: how the schema of the database is another one; empty if it is not.
        refusal: why every call is refused; empty if it is not.
    """

    options: Options
    schema: KeySchema
    servers: Sequence[ServerFacts] | Unknown
    replica: ServerFacts | Unknown | None
    sample: Sample | Unknown
    missing: Sequence[Right] | Unknown
    schema_keys: SchemaKeys | Unknown
    mismatch: str = ""
    refusal: str = ""

    @property
    def keys(self) -> Sample:
        """The sample of the keys. Raises `Unknown`."""
        if isinstance(self.sample, Unknown):
            raise self.sample
        return self.sample

    @property
    def nodes(self) -> Sequence[ServerFacts]:
        """The servers that have marks. Raises `Unknown`."""
        if isinstance(self.servers, Unknown):
            raise self.servers
        return self.servers


class Check(NamedTuple):
    """A check.

    Attributes:
        name: its name.
        why: why it matters.
        judge: returns a verdict; raises `Unknown` if it is not possible.
    """

    name: str
    why: str
    judge: Callable[[Subject], Verdict]


def ok(seen: str) -> Verdict:
    """Return the verdict that all is well."""
    return Verdict("ok", seen)


def run(check: Check, subject: Subject) -> Finding:
    """Return the finding of a check."""
    try:
        verdict = check.judge(subject)
    except Unknown as reason:
        verdict = Verdict("skipped", str(reason))
    return Finding(check=check.name, why=check.why, **verdict._asdict())


def each_server(
    judge: Callable[[Subject, ServerFacts], Verdict],
) -> Callable[[Subject], Verdict]:
    """Return a judge of all servers: the worst verdict, with the nodes that it is about."""

    def judge_all(subject: Subject) -> Verdict:
        verdicts: list[tuple[str, Verdict]] = []
        for server in subject.nodes:
            try:
                verdict = judge(subject, server)
            except Unknown as reason:
                verdict = Verdict("skipped", str(reason))
            verdicts.append((server.node, verdict))
        worst = max(_RANKS[verdict.status] for _, verdict in verdicts)
        having = [each for each in verdicts if _RANKS[each[1].status] == worst]
        node, verdict = having[0]
        if not node:
            return verdict
        if len(having) == len(verdicts) and len({each.seen for _, each in having}) == 1:
            seen = f"all {len(having)} nodes: {verdict.seen}"
        else:
            seen = "; ".join(f"{node}: {each.seen}" for node, each in having[:_NODES])
            if len(having) > _NODES:
                seen += f"; and {len(having) - _NODES} more nodes"
        return verdict._replace(seen=seen)

    return judge_all


def plural(number: int, noun: str) -> str:
    """Return a number with a noun, which gets an "s" unless there is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def in_bytes(size: float) -> str:
    """Return a size for people."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    if unit:
        return f"{size:.3g} {_UNITS[unit]}"
    return f"{size:.0f} byte{'' if size == 1 else 's'}"
