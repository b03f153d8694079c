"""Steps of programs written for bitmapist, done by bitmapist or by the drop-in.

Started as ``python dropin_programs.py bitmapist``, it reads a step from each line of standard
input and writes the answer to a line, both as JSON, so the real bitmapist runs in a Python of
its own. The steps of the drop-in run in the process of the tests.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import io
import itertools
import json
import random
import sys
import types
from datetime import datetime
from typing import Any

KINDS = ["YearEvents", "MonthEvents", "WeekEvents", "DayEvents", "HourEvents", "UniqueEvents"]
OPERATIONS = {"AND": "BitOpAnd", "OR": "BitOpOr", "XOR": "BitOpXor", "NOT": "BitOpNot"}


class Steps:
    """Does the steps of programs with one of the two libraries."""

    def __init__(self, name: str, urls: dict[str, str]) -> None:
        import redis

        self.library: Any = importlib.import_module(name)
        self.cohort: Any = importlib.import_module(f"{name}.cohort")
        self.clients: dict[str, Any] = {
            system: redis.Redis.from_url(url) for system, url in urls.items()
        }
        self.library.SYSTEMS.update(self.clients)

    def do(self, step: dict[str, Any]) -> Any:
        """Do one step and return its answer, which JSON can hold."""
        return getattr(self, step["do"])(*step["args"])

    def begin(self) -> None:
        """Reset the switches and empty the databases."""
        self.library.TRACK_HOURLY = self.library.TRACK_UNIQUE = False
        self.library.delete_runtime_bitop_keys()
        for client in self.clients.values():
            client.flushdb()

    def mark(
        self,
        verb: str,
        event: str,
        user: Any,
        system: str,
        now: str | None,
        options: dict[str, Any],
    ) -> Any:
        """Mark or unmark, with positional arguments as far as they go."""
        moment = None if now is None else datetime.fromisoformat(now)
        return getattr(self.library, verb)(event, user, system, moment, **options)

    def mark_at_random(
        self, seed: int, events: list[str], systems: list[str], days: list[str], users: list[int]
    ) -> None:
        """Mark at random, enough that most reads have users."""
        choose = random.Random(seed)
        for event, system, day in itertools.product(events, systems, days):
            if choose.random() < 0.6:
                hour = choose.choice([0, 23])
                now = datetime.fromisoformat(f"{day}T{hour:02}:30:00")
                for user in choose.sample(users, choose.randint(1, 4)):
                    flag = choose.random() < 0.1
                    self.library.mark_event(event, user, system, now, True, track_unique=flag)

    def flag(self, verb: str, event: str, user: int, system: str) -> Any:
        return getattr(self.library, verb)(event, user, system=system)

    def switch(self, name: str, value: bool) -> None:
        setattr(self.library, name, value)

    def queue(self, system: str, marks: list[list[Any]]) -> list[int]:
        """Mark in a pipeline of the program."""
        pipeline = self.clients[system].pipeline()
        for verb, event, user, now, options in marks:
            if verb.endswith("_unique"):
                getattr(self.library, verb)(event, user, pipeline)
            else:
                moment = datetime.fromisoformat(now)
                call = getattr(self.library, verb)
                call(event, user, pipeline, now=moment, use_pipeline=False, **options)
        found: list[int] = pipeline.execute()
        return found

    def queue_counts(self, system: str, leaves: list[list[Any]]) -> list[int]:
        """Count in a pipeline of the program."""
        pipeline = self.clients[system].pipeline()
        for kind, *arguments in leaves:
            getattr(self.library, kind)(*arguments, system=pipeline).get_count()
        found: list[int] = pipeline.execute()
        return found

    def ask(self, system: str, expression: list[Any], users: list[int]) -> dict[str, Any]:
        """Return what each reading method of an expression returns."""
        events = self.events(system, expression)
        return {
            "users": list(events),
            "again": list(events.get_uuids()),
            "count": len(events),
            "also": events.get_count(),
            "contained": [user for user in users if user in events],
            "any": events.has_events_marked(),
            "true": bool(events),
        }

    def keep(self, system: str, expression: list[Any], how: str) -> list[Any]:
        """Return the key of an operation and its bitmap, and whether it exists after a deletion."""
        events = self.events(system, expression)
        client = self.clients[system]
        key = events.redis_key
        kept = (client.get(key) or b"").rstrip(b"\0").hex()
        if how == "delete":
            events.delete()
        elif how == "runtime":
            self.library.delete_runtime_bitop_keys()
        else:
            self.library.delete_temporary_bitop_keys(system)
        return [key, kept, client.exists(key)]

    def walk(self, kind: str, event: str, now: str, deltas: list[int]) -> list[Any]:
        """Shift the events of a period, step by step, from the period of a moment on."""
        cls = getattr(self.library, kind)
        events = cls.from_date(event, datetime.fromisoformat(now))
        found: list[Any] = []
        for delta in deltas:
            events = {1: events.next, -1: events.prev}.get(delta, lambda: events.delta(delta))()  # noqa: B023
            same = cls.from_date(event, events.period_start())
            found.append(
                [
                    events.period_start().isoformat(),
                    events.period_end().isoformat(),
                    events == same,
                    hash(events) == hash(same),
                    events != self.library.UniqueEvents(event),
                    events == 1,
                    [getattr(events, name, None) for name in ("year", "month", "week", "day")],
                ]
            )
        return found

    def delete(self, system: str, leaf: list[Any]) -> None:
        self.events(system, leaf).delete()

    def names(self, system: str, prefix: str) -> list[str]:
        return sorted(self.library.get_event_names(system, prefix))

    def delete_all(self, system: str, sure: bool) -> None:
        if sure:  # which is rare, or there would be nothing to ask about
            self.library.delete_all_events(system)

    def cells(self, options: dict[str, Any]) -> Any:
        """Return a cohort table; its dates without the time, which passes."""
        table = self.cohort.get_dates_data(**options)
        return [[row[0].date().isoformat(), *row[1:]] for row in table]

    def csv(self, options: dict[str, Any]) -> str:
        """Return a cohort table as CSV."""
        table = self.cohort.get_dates_data(**options)
        shown = {name: options[name] for name in ("time_group", "as_percent") if name in options}
        rows = options.get("num_of_rows", 12)
        return str(self.cohort.render_csv_data(table, num_of_rows=rows, **shown).strip())

    def keys(self, system: str) -> dict[str, str]:
        """Return all bitmaps, to the byte; without what operations have left."""
        client = self.clients[system]
        return {
            key.decode(): client.get(key).hex()
            for key in client.keys("*")
            if not key.startswith(b"trackist_bitop_")
        }

    def left(self, system: str) -> list[str]:
        """Return what operations have left."""
        return sorted(key.decode() for key in self.clients[system].keys("*bitop*"))

    def events(self, system: str, expression: list[Any]) -> Any:
        """Build events: a kind with its arguments, or an operation with its operands."""
        head, *rest = expression
        if head in KINDS:
            return getattr(self.library, head)(*rest, system=system)
        operands = [self.events(system, operand) for operand in rest]
        if system == "default" and len(operands) == 2:
            return {"AND": operands[0].__and__, "OR": operands[0].__or__}.get(
                head, operands[0].__xor__
            )(operands[1])
        return getattr(self.library, OPERATIONS[head])(system, *operands)

    def signatures(self) -> dict[str, list[list[str]]]:
        """Return the parameters of everything public: names, kinds and defaults."""
        found: dict[str, list[list[str]]] = {}
        for module in (self.library, self.cohort):
            for name, value in vars(module).items():
                if name.startswith("_") or isinstance(value, types.ModuleType):
                    continue
                if "bitmapist" not in getattr(value, "__module__", "bitmapist"):
                    continue  # another library's
                if inspect.isclass(value):
                    for attribute in dir(value):
                        member = getattr(value, attribute)
                        if (attribute == "__init__" or attribute[0] != "_") and callable(member):
                            found[f"{name}.{attribute}"] = _parameters(member)
                    found.setdefault(name, [])
                elif inspect.isfunction(value):
                    found[name] = _parameters(value)
                else:
                    found[name] = []
        return found

    def blocks(self, prelude: str, blocks: list[str]) -> list[Any]:
        """Run the blocks of a document as one program; say what each printed and raised."""
        names: dict[str, Any] = {}
        found = []
        for block in [prelude, *blocks]:
            printed = io.StringIO()
            raised = None
            with contextlib.redirect_stdout(printed):
                try:
                    exec(compile(block, "block", "exec"), names)
                except Exception as error:  # noqa: BLE001
                    raised = [type(error).__name__, str(error)]
            found.append([printed.getvalue(), raised])
        return found

    def readme(self) -> str:
        """Return the README of the installed library."""
        metadata: Any = importlib.metadata.metadata("bitmapist")
        return str(metadata.get_payload())


def _parameters(function: Any) -> list[list[str]]:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function of C's
        return []
    return [
        [each.name, each.kind.name, repr(each.default)]
        for each in signature.parameters.values()
        if each.name != "self"
    ]


if __name__ == "__main__":
    steps = Steps(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(steps.do(json.loads(line))), flush=True)
