"""What an import of tallymark loads, and what is imported at its first use, in fresh processes."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

import tallymark

if TYPE_CHECKING:
    from stores import Store

#: What a program that marks events on an event loop does not use. A name stands for a module
#: and all modules below it.
OPTIONAL = (
    *("fakeredis", "lupa", "numpy", "pandas", "jinja2", "opentelemetry"),
    *("html", "csv", "argparse", "zoneinfo", "importlib.metadata"),
    *("tallymark.bitmapist", "tallymark.integrations", "tallymark.migrate", "tallymark.otel"),
    *("tallymark._reports", "tallymark._charts"),
)
BLOCKING = ("tallymark.sync", "tallymark._sync")
CLUSTER = (
    *("tallymark._async.cluster_backend", "tallymark._async.cluster_commit"),
    *("tallymark._sync.cluster_backend", "tallymark._sync.cluster_writer", "tallymark._sync.nodes"),
    *("tallymark._async.nodes", "tallymark._cluster.execution", "tallymark._cluster.routing"),
    *("tallymark._cluster.shard_transactions", "tallymark._cluster.topology"),
)

#: Each program calls `loaded` after its steps, with the modules that are not due to redis-py
#: and anyio; these import some of the modules above in some versions.
BEGIN = """
import json, sys
import redis.asyncio, anyio, asyncio
url = sys.argv[1]
others = set(sys.modules)
steps = []
def loaded():
    steps.append(sorted(sys.modules.keys() - others))
"""
END = "\nprint(json.dumps(steps))"

A_TALLY = """
import tallymark
loaded()
async def main():
    async with tallymark.Tally.from_url(url) as tally:
        await tally.mark_event("active", 1)
        loaded()
asyncio.run(main())
"""
THE_DEFAULT_TALLY = """
import tallymark
loaded()
tallymark.configure(url)
async def main():
    await tallymark.mark_event("active", 1)
    loaded()
asyncio.run(main())
"""
A_BLOCKING_TALLY = """
from tallymark import SyncTally
loaded()
with SyncTally.from_url(url) as tally:
    tally.mark_event("active", 1)
    loaded()
"""
THE_BLOCKING_DEFAULT_TALLY = """
from tallymark import sync as tm
loaded()
tm.configure(url)
tm.mark_event("active", 1)
loaded()
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def within(modules: list[str], names: tuple[str, ...]) -> list[str]:
    return [
        module
        for module in modules
        if any(module == name or module.startswith(f"{name}.") for name in names)
    ]


@pytest.mark.parametrize(
    ("program", "unused"),
    [
        (A_TALLY, OPTIONAL + BLOCKING + CLUSTER),
        (THE_DEFAULT_TALLY, OPTIONAL + BLOCKING + CLUSTER),
        (A_BLOCKING_TALLY, OPTIONAL + CLUSTER),
        (THE_BLOCKING_DEFAULT_TALLY, OPTIONAL + CLUSTER),
    ],
    ids=["a tally", "the default tally", "a blocking tally", "the blocking default tally"],
)
def test_marking_loads_only_what_it_uses(
    program: str, unused: tuple[str, ...], redis_store: Store
) -> None:
    imported, marked = json.loads(run(BEGIN + program + END, redis_store.url))
    assert within(imported, unused) == []
    assert within(marked, ("tallymark",)) == within(imported, ("tallymark",))
    # redis-py looks up its own version when it makes a connection.
    assert set(within(marked, unused)) <= {*within(marked, ("importlib.metadata",)), "csv"}


def test_what_only_type_checkers_need_is_not_imported() -> None:
    """redis-py and anyio are the only packages that have to be installed."""
    run(
        """
import builtins, pkgutil
imported = builtins.__import__
def guarded(name, globals=None, *others):
    by = (globals or {}).get("__name__", "")
    assert not (by.startswith("tallymark") and name.startswith("typing_extensions")), by
    return imported(name, globals, *others)
builtins.__import__ = guarded
import tallymark
for module in pkgutil.walk_packages(tallymark.__path__, "tallymark."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
"""
    )


def test_what_is_imported_late_is_found_in_every_way() -> None:
    run(
        """
import inspect, sys, tallymark
late = {"Bar", "Cell", "CellState", "Cohort", "CurvePoint", "DaysActive", "DaysBar", "Funnel"}
late |= {"FunnelStep", "Lifecycle", "LifecycleRow", "LifecycleTotals", "Report", "Retention"}
late |= {"Stickiness", "Streak", "Streaks", "SyncTally", "sync"}
assert not late & vars(tallymark).keys()
assert late <= set(dir(tallymark)) and set(tallymark.__all__) <= set(dir(tallymark))
assert "tallymark.sync" not in sys.modules
assert tallymark.sync.mark_event is not tallymark.mark_event  # no import of the submodule
assert tallymark.sync is sys.modules["tallymark.sync"]
from tallymark import *
for name in tallymark.__all__:
    assert globals()[name] is getattr(tallymark, name), name
assert tallymark.Retention is sys.modules["tallymark._reports.retention"].Retention
assert tallymark.SyncTally is tallymark.sync.SyncTally
assert isinstance(tallymark.__version__, str)
tallymark.TRACK_HOURLY = True
assert tallymark.sync.TRACK_HOURLY is True
try:
    tallymark.missing
except AttributeError as error:
    assert str(error) == "module 'tallymark' has no attribute 'missing'"
else:
    raise AssertionError
"""
    )


def test_a_switch_set_before_is_seen_by_the_blocking_module() -> None:
    run(
        """
import tallymark
tallymark.TRACK_UNIQUE = True
from tallymark import sync
assert sync.TRACK_UNIQUE is True and vars(sync)["TRACK_UNIQUE"] is True
sync.TRACK_UNIQUE = False
assert tallymark.TRACK_UNIQUE is False
"""
    )


def test_late_names_can_be_patched() -> None:
    run(
        """
from unittest import mock
import tallymark
with mock.patch("tallymark.SyncTally") as patched:
    assert tallymark.SyncTally is patched
assert tallymark.SyncTally is tallymark.sync.SyncTally
with mock.patch("tallymark.sync.mark_event") as patched:
    assert tallymark.sync.mark_event is patched
"""
    )


def test_help_and_hints_of_what_is_imported_late() -> None:
    shown = run(
        """
import inspect, pydoc, typing, tallymark
print(pydoc.plain(pydoc.render_doc(tallymark)))
print(inspect.signature(tallymark.SyncTally), typing.get_type_hints(tallymark.Funnel))
"""
    )
    for name in ("Cell", "Cohort", "Funnel", "Retention", "SyncTally"):
        assert f"    class {name}(" in shown
    assert "(client: 'Redis | RedisCluster', *, user_ids: 'type[IdT] | None' = None, **opt" in shown
    assert "'period': <class 'tallymark._core.periods.Period'>" in shown


def test_reports_and_event_sets_travel_to_a_process_that_has_imported_nothing() -> None:
    with tallymark.SyncTally.from_url("memory://imports") as tally:
        tally.mark_event("active", 1, now=datetime(2026, 11, 23))
        table = tally.retention("active", "active", by="day", periods=2)
        funnel = tally.funnel(["active"], moment=datetime(2026, 11, 23))
        pickled = pickle.dumps((table, funnel, tallymark.CellState.FINISHED, tally.day("a")))
    run(
        """
import pickle, sys
assert "tallymark" not in sys.modules
table, funnel, state, event_set = pickle.loads(bytes.fromhex(sys.argv[1]))
import tallymark
assert type(table) is tallymark.Retention and type(funnel) is tallymark.Funnel
assert state is tallymark.CellState.FINISHED and isinstance(event_set, tallymark.EventSet)
""",
        pickled.hex(),
    )
