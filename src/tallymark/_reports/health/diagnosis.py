"""The result of an examination: findings. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..._charts.tables import Table
from ..results import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._charts.page import Figure

__all__ = ["Diagnosis", "Finding", "Status"]

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has found.

    Attributes:
        check: the name of the check.
        status: ``"problem"``: marks or answers fail or are wrong, or data will be lost;
            ``"warning"``: they may, or there is waste; ``"ok"``; ``"skipped"``: the check was
            not possible, or has no object here.
        seen: what was seen; for a skipped check, why it was skipped.
        why: why it matters.
        advice: what to do; empty where there is nothing to do.
    """

    check: str
    status: Status
    seen: str
    why: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Report):
    """The findings of `Tally.doctor`, each of one check, in the order of the checks.

    Attributes:
        findings: the findings.
        keys: how many keys were examined.
        complete: whether these were all keys of the database; else they are a sample.
    """

    findings: tuple[Finding, ...] = ()
    keys: int = 0
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether no check has found a problem. There may be warnings."""
        return not self.having("problem")

    def having(self, status: Status) -> tuple[Finding, ...]:
        """Return the findings with a ``status``: ``"ok"``, ... Raises nothing."""
        return tuple(finding for finding in self.findings if finding.status == status)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return a dict for each finding, with values that JSON and CSV can represent."""
        return [
            {
                "check": finding.check,
                "status": finding.status,
                "seen": finding.seen,
                "why": finding.why,
                "advice": finding.advice,
            }
            for finding in self.findings
        ]

    def summary(self) -> str:
        """Return in one line how many problems and warnings there are."""
        counts = [
            f"{len(found)} {name}{'' if len(found) == 1 else 's'}"
            for name, found in (
                ("problem", self.having("problem")),
                ("warning", self.having("warning")),
            )
        ]
        keys = f"all {self.keys}" if self.complete else f"the first {self.keys} found"
        return f"{counts[0]} and {counts[1]} in {len(self.findings)} checks; of the keys, {keys}"

    def _title(self) -> str:
        return "The health of the database"

    def _caption(self) -> str:
        return f"{self.summary()}."

    def _figures(self) -> Sequence[Figure]:
        rows = [list(row.values()) for row in self.to_rows()]
        columns = ["check", "status", "seen", "why it matters", "what to do"]
        return [Table("Findings", columns, rows, names=len(columns))]
