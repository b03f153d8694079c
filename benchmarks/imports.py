"""How long imports take: `python benchmarks/imports.py`; `--rounds 31` for steadier numbers.

Each import runs in a fresh process, the imports in turns. The times are medians of the import
statement alone, in a process that has started: its CPU time, and the wall time. A first round,
which is not counted, writes the bytecode caches. "Of the dependencies" is the ratio to the CPU
time of redis-py and anyio, without which nothing works.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

DEPENDENCIES = "import redis.asyncio, anyio"
IMPORTS = (
    DEPENDENCIES,
    "import tallymark",
    "from tallymark import sync",
    "import tallymark.bitmapist",
    "import tallymark.migrate",
)
#: `import tallymark` may take at most this many times what its dependencies take.
MOST = 1.35

PROGRAM = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def timed(statement: str) -> tuple[float, float]:
    """Return the seconds of CPU time and of wall time of an import in a fresh process."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    arguments = [sys.executable, "-c", PROGRAM.format(statement)]
    ran = subprocess.run(arguments, env=env, capture_output=True, text=True, check=True)
    cpu, wall = map(float, ran.stdout.split())
    return cpu, wall


def main() -> int:
    """Measure; return 1 if `import tallymark` takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="processes for each import")
    rounds = parser.parse_args().rounds
    times: dict[str, list[tuple[float, float]]] = {statement: [] for statement in IMPORTS}
    for number in range(rounds + 1):
        for statement in IMPORTS:
            measured = timed(statement)
            if number:
                times[statement].append(measured)
    ratios: dict[str, float] = {}
    print("| import | CPU time | wall time | of the dependencies |\n| --- | --- | --- | --- |")
    for statement in IMPORTS:
        cpu, wall = (statistics.median(column) for column in zip(*times[statement], strict=True))
        base = statistics.median(column[0] for column in times[DEPENDENCIES])
        ratios[statement] = cpu / base
        print(f"| `{statement}` | {cpu * 1e3:.0f} ms | {wall * 1e3:.0f} ms | {cpu / base:.2f} |")
    return 0 if ratios["import tallymark"] <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
