"""The same programs on bitmapist 3.119 and on `tallymark.bitmapist`, on a database each.

Their answers and the bits they leave have to be equal. What is different on purpose stays
out of the programs here, and has tests of its own in test_bitmapist.py: complements,
results of operators on another system than the default one, weeks in CSV, the start of
tables that have a start date and are not by days.
"""

from __future__ import annotations

import json
import re
import subprocess
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dropin_programs import KINDS, Steps
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from workers import running_worker

from servers import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workers import Worker

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-bitmapist.md"
PROGRAMS = Path(__file__).with_name("dropin_programs.py")
SYSTEMS = ["default", "other"]
#: How many programs there are, and how many steps each has at least.
EXAMPLES, LENGTH = 110, 20


class Both:
    """bitmapist, in its own process, and the drop-in."""

    def __init__(self, worker: Worker, ours: Steps) -> None:
        self._worker = worker
        self.ours = ours

    def theirs(self, do: str, *args: Any) -> Any:
        return self._worker.ask({"do": do, "args": args})

    def do(self, do: str, *args: Any) -> Any:
        """Do a step with both; check that they answer the same, and return it."""
        theirs = self.theirs(do, *args)
        ours = json.loads(json.dumps(self.ours.do({"do": do, "args": args})))
        assert ours == theirs, (do, args)
        return ours


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    # Of our own, also where another server is to be tested on: it has several databases.
    with running_server() as url:
        base = url.removesuffix("/0")
        numbers = iter(range(2 * len(SYSTEMS)))
        ours, theirs = ({name: f"{base}/{next(numbers)}" for name in SYSTEMS} for _ in range(2))
        steps = Steps("tallymark.bitmapist", ours)
        before = dict(steps.library.SYSTEMS)
        with running_worker(PROGRAMS, "bitmapist", json.dumps(theirs)) as worker:
            found = Both(worker, steps)
            found.do("begin")
            yield found
            found.do("begin")
    steps.library.SYSTEMS.clear()
    steps.library.SYSTEMS.update(before)


EVENTS = ["active", "a", "a_b_2026-1", "größe:m"]
USERS = [0, 1, 2, 3, 7, 8, 40, 255, 4_096]
events = st.sampled_from(EVENTS)
users = st.sampled_from(USERS)
user_ids = users | users.map(str)
systems = st.sampled_from(SYSTEMS)
#: Few, so that programs meet what they have marked. Around the ends of years, weeks belong
#: to another year than their days; and tables that are not by days end with the present.
TODAY = datetime.now(timezone.utc).date()
DAYS = [
    *(date(2024, 12, 29), date(2024, 12, 30), date(2027, 1, 1), date(2027, 1, 4)),
    *(TODAY - timedelta(days) for days in (0, 8, 40, 400)),
]
days = st.sampled_from(DAYS)
moments = st.builds(
    lambda day, hour, zone: f"{day}T{hour:02}:30:00{zone}",
    days,
    st.sampled_from([0, 23]),
    st.sampled_from(["", "+00:00", "+05:30", "-08:00"]),
)
switches = st.sampled_from([None, True, False])
tracking = st.fixed_dictionaries({}, optional={"track_hourly": switches, "track_unique": switches})
verbs = st.sampled_from(["mark_event", "mark_event", "mark_event", "unmark_event"])
flags = st.sampled_from(["mark_unique", "unmark_unique"])


def leaf_of(kind: str, event: str, moment: str) -> list[Any]:
    when = datetime.fromisoformat(moment)
    numbers = {
        "YearEvents": [when.year],
        "MonthEvents": [when.year, when.month],
        # No year has a week 99, which bitmapist takes, and so do we.
        "WeekEvents": [when.year, 99] if event == "a" else list(when.isocalendar()[:2]),
        "DayEvents": [when.year, when.month, when.day],
        "HourEvents": [when.year, when.month, when.day, when.hour],
        "UniqueEvents": [],
    }
    return [kind, event, *numbers[kind]]


leaves = st.builds(leaf_of, st.sampled_from(KINDS), events, moments)
expressions = st.recursive(
    leaves,
    lambda parts: st.builds(
        lambda operation, operands: [operation, *operands],
        st.sampled_from(["AND", "OR", "XOR"]),
        st.lists(parts, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
operations = expressions.filter(lambda expression: expression[0] not in KINDS)
cohorts = st.fixed_dictionaries(
    {
        "select1": events,
        "select2": events,
        "num_results": st.integers(1, 9) | st.just("4"),
        "num_of_rows": st.integers(0, 6),
        "as_percent": st.booleans(),
        "system": systems,
    },
    optional={"select1b": events, "select2b": events},
)
by_days = st.builds(
    lambda options, day: options | {"time_group": "days", "start_date": day.isoformat()},
    cohorts,
    days,
)
#: Of other lengths, tables end with the present; so the marks of some are made now.
by_others = st.builds(
    lambda options, group: options | {"time_group": group},
    cohorts,
    st.sampled_from(["weeks", "months", "years"]),
)


def step(do: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(do), *arguments)


marks = step("mark", verbs, events, user_ids, systems, moments, tracking)
steps = st.one_of(
    marks,
    marks,
    marks,
    step("flag", flags, events, user_ids, systems),
    step("switch", st.sampled_from(["TRACK_HOURLY", "TRACK_UNIQUE"]), st.booleans()),
    step(
        "queue",
        systems,
        st.lists(st.tuples(verbs | flags, events, users, moments, tracking), max_size=4),
    ),
    step("queue_counts", systems, st.lists(leaves.filter(lambda leaf: leaf[0] != "YearEvents"))),
    step("ask", systems, expressions, st.lists(users, max_size=5)),
    step("ask", systems, expressions, st.lists(users, max_size=5)),
    step("keep", systems, operations, st.sampled_from(["delete", "runtime", "temporary"])),
    step(
        "walk",
        st.sampled_from(KINDS[:-1]),
        events,
        moments,
        st.lists(st.sampled_from([1, -1, 13, -60, 400]), max_size=3),
    ),
    step("delete", systems, leaves.filter(lambda leaf: leaf[0] != "YearEvents")),
    step("names", systems, st.sampled_from(["", "a", "a_b", "song:"])),
    step("delete_all", systems, st.sampled_from([False, False, True])),
    step("cells", by_days | by_others),
    step("csv", by_days),
)


@settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32), program=st.lists(steps, min_size=LENGTH, max_size=2 * LENGTH))
def test_random_programs_answer_the_same(
    both: Both, seed: int, program: list[tuple[Any, ...]]
) -> None:
    both.do("begin")
    both.do("mark_at_random", seed, EVENTS, SYSTEMS, [day.isoformat() for day in DAYS], USERS)
    for do, *arguments in program:
        answer = both.do(do, *arguments)
        Done.steps += 1
        Done.nonempty += do in READS and has_users(answer)
        for system in SYSTEMS:
            assert both.ours.left(system) == []
    for system in SYSTEMS:
        both.do("keys", system)


READS = ("ask", "keep", "cells", "csv")


def has_users(answer: Any) -> bool:
    """Return whether an answer has any user."""
    if isinstance(answer, dict):
        return bool(answer["users"])
    if isinstance(answer, str):
        return any(line.split(",")[1] != "0" for line in answer.splitlines()[1:])
    return bool(answer[1]) if isinstance(answer[0], str) else any(row[1] for row in answer)


class Done:
    """How many steps were done, and how many reads had an answer with users."""

    steps = nonempty = 0


def test_there_were_enough_random_steps() -> None:
    print(f"{Done.steps} random steps, {Done.nonempty} answers with users")
    assert Done.steps >= 2_000
    assert Done.nonempty >= 100


def test_the_present_is_the_same(both: Both) -> None:
    """What goes by the clock; once again, if midnight has passed in between."""
    today = datetime.now(timezone.utc).date()
    try:
        check_the_present(both)
    except AssertionError:
        if datetime.now(timezone.utc).date() == today:
            raise
        check_the_present(both)


def check_the_present(both: Both) -> None:
    both.do("begin")
    both.do("mark", "mark_event", "active", 5, "default", None, {"track_hourly": True})
    both.do("mark", "mark_event", "active", 6, "default", None, {"track_unique": True})
    for kind in KINDS:
        assert both.do("ask", "default", [kind, "active"], [5, 7])["any"]
        assert both.do("ask", "default", ["AND", [kind, "active"], [kind, "active"]], [5])["any"]
    for group in ("days", "weeks", "months", "years"):
        table = both.do("cells", {"select1": "active", "select2": "active", "time_group": group})
        assert table[-1][1:3] == [2, 100.0]


#: What is Mako's or for type checkers, and no part of what bitmapist does.
NOT_OURS = {"get_lookup", "Optional", "Union", "Any", "Literal", "TYPE_CHECKING", "annotations"}


def test_every_public_name_has_the_same_signature(both: Both) -> None:
    theirs = both.theirs("signatures")
    ours = json.loads(json.dumps(both.ours.signatures()))
    wanted = {name: parameters for name, parameters in theirs.items() if name not in NOT_OURS}
    assert len(wanted) > 100
    assert {"mark_event", "BitOpNot.__init__", "WeekEvents.period_end"} <= set(wanted)
    missing = set(wanted) - set(ours)
    assert missing == set()
    different = {name: (ours[name], wanted[name]) for name in wanted if ours[name] != wanted[name]}
    assert different == {}


#: What bitmapist's README takes for granted, and its two slips of the pen.
PRELUDE = """
import bitmapist
import bitmapist as bitmapist_again
bitmapist.setup_redis("default", {host!r}, {port}, db={db})
from bitmapist import DayEvents as DailyEvents, MonthEvents, UniqueEvents
from bitmapist import mark_unique, unmark_unique
from datetime import datetime, timedelta, timezone
MonthEvent = MonthEvents.from_date
last_month = datetime.now(tz=timezone.utc) - timedelta(days=30)
bitmapist.mark_event("active", 123, now=last_month)
dt = datetime(2020, 1, 1, tzinfo=timezone.utc)
cache = type("Cache", (dict,), {{"set": dict.__setitem__}})()
active = DailyEvents("active")
add_extra_karma = print
"""


def switched(program: str) -> str:
    """Return a program after the switch, made by the very ``sed`` that the document names."""
    (expression,) = re.findall("^sed -i '(.*)'", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    completed = subprocess.run(
        ["sed", expression], input=program, capture_output=True, check=True, text=True
    )
    return completed.stdout


def test_every_block_of_its_readme_runs_unchanged(both: Both) -> None:
    both.do("begin")
    readme = both.theirs("readme")
    blocks = [
        token.content
        for token in MarkdownIt().parse(readme)
        if token.type == "fence" and token.info == "python"
    ]
    assert len(blocks) > 20
    outputs = []
    for system, run in (
        ("theirs", both.theirs),
        ("ours", lambda do, *args: both.ours.do({"do": do, "args": args})),
    ):
        client = both.ours.clients["default"]
        where = client.connection_pool.connection_kwargs
        db = where["db"] if system == "ours" else where["db"] + len(SYSTEMS)
        program = [
            PRELUDE.format(host=where["host"], port=where["port"], db=db),
            *blocks,
            "print(len(MonthEvents('active')), bitmapist.get_event_names())",
        ]
        if system == "ours":
            program = [switched(block) for block in program]
        outputs.append(run("blocks", program[0], program[1:]))
    theirs, ours = outputs
    for block, their, our in zip(["prelude", *blocks, "the end"], theirs, ours, strict=True):
        if "cohort" in block:  # its markup is another
            assert (their[1], our[1]) == (None, None)
            assert "<form" in our[0]
        elif "MonthEvents()" in block:  # without the event's name, in the README
            assert our[1][0] == their[1][0] == "TypeError"
        else:
            assert our == their, block
            assert our[1] is None, block
    both.ours.library.SYSTEMS.update(both.ours.clients)
