"""The examination of a database and its servers: `tallymark.Tally.doctor`. Pure.

`doctor` collects facts, with `servers`, `samples` and `rights`; the checks judge them.
"""

from __future__ import annotations

__all__: list[str] = []
