"""Imports of files: read and grouped by DuckDB, and marked in a tally.

`Import` runs the steps; `sources` finds the files, `readers` makes relations of them, `fields`
and `presets` say where the event, the user and the time are, `rows` and `expressions` make one
query of it, `staging` has the database.
"""

from __future__ import annotations

__all__: list[str] = []
