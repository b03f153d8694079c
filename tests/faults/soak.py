"""Run every scenario for minutes, and print a table of the results: ``nox -s soak``."""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import re
import sys
import traceback
import warnings
from datetime import date
from pathlib import Path

import redis

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
# ruff: noqa: E402 - the tests import each other in the same way

from scenarios import SCENARIOS, run, setting_of
from world import CALLERS, HEADER, THREADS, TIMEOUT, Outcome, durable_server, world

#: The markers of the table in a document.
_TABLE = re.compile(r"(?<=<!-- soak -->\n).*?(?=<!-- /soak -->)", re.DOTALL)

#: The least number of faults of a scenario, even if its time is over.
FEWEST_FAULTS = 20


async def outcome(name: str, blocking: bool, seconds: float) -> Outcome:
    """Run one scenario."""
    async with world(blocking=blocking, setting=setting_of(name)) as made:
        # A failover takes seconds; all other scenarios reach this number soon.
        fewest = FEWEST_FAULTS if setting_of(name) == "server" else 1
        await run(made, name, random.Random(), seconds, fewest)
    facade = f"{THREADS} threads" if blocking else f"{CALLERS} tasks"
    return made.outcome(f"{name}, {facade}")


def table(outcomes: list[Outcome], minutes: float) -> str:
    """Return all outcomes as Markdown."""
    with durable_server() as server, redis.Redis(port=server.port) as raw:
        version = raw.info("server")["redis_version"]
    rows = [HEADER, ("---",) * len(HEADER), *(each.cells() for each in outcomes)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return (
        f"{date.today()}, {minutes:g} minutes, Redis {version} with `appendfsync always`, "
        f"Python {platform.python_version()}, timeout {TIMEOUT:g} s.\n\n" + "\n".join(lines) + "\n"
    )


def main() -> int:
    """Run all scenarios; return how many had lost marks, late calls or an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all scenarios together")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    options = parser.parse_args()
    warnings.simplefilter("error")
    runs = [(name, blocking) for blocking in (False, True) for name in SCENARIOS]
    outcomes: list[Outcome] = []
    broken = 0
    print(*HEADER, sep=" | ", flush=True)
    for name, blocking in runs:
        try:
            outcomes.append(asyncio.run(outcome(name, blocking, 60 * options.minutes / len(runs))))
        except Exception:  # noqa: BLE001 - printed; the next scenario runs
            traceback.print_exc()
            broken += 1
            continue
        print(*outcomes[-1].cells(), outcomes[-1].raised or "", sep=" | ", flush=True)
    text = table(outcomes, options.minutes)
    print(f"\n{text}")
    if options.write and not broken:
        document = options.write.read_text()
        options.write.write_text(_TABLE.sub(lambda _: f"\n{text}\n", document))
    return broken + sum(bool(each.lost or each.late) for each in outcomes)


if __name__ == "__main__":
    sys.exit(main())
