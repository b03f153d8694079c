"""Imports of files: `tallymark import`, beside a loop that marks row by row.

The rows are of 50 events and 90 days, 25 of each user, in random order, as Segment exports them;
ids are e-mail addresses. The program runs in a process of its own, whose memory is measured. After
each import, the number of marks of each day is compared with that of the rows. The loop reads
the first rows of the same file.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import redis
from contest import WrongBitsError

from tallymark import SyncTally

EVENTS = 50
DAYS = 90
BEGIN = date(2026, 1, 1)

#: The program, which also prints its peak of memory in KiB. (``getrusage`` has that of the process
#: from which it was started, if that is higher.)
_PROGRAM = """
import re, sys
from tallymark.cli import main
code = main(sys.argv[1:])
with open("/proc/self/status") as file:
    print(re.search(r"VmHWM:\\s*([0-9]+)", file.read())[1], file=sys.stderr)
sys.exit(code)
"""

#: How many rows a user has.
ROWS_OF_A_USER = 25

#: So many rows, of so many users. A hash of a number is as good as chance, and always the same.
_ROWS = f"""
SELECT 'track' AS type, 'event_' || lpad((hash(n) % {EVENTS})::VARCHAR, 2, '0') AS event,
    printf('%08x.%d@example.com', hash(u) % 4294967296, u) AS "userId",
    strftime(t, '%Y-%m-%dT%H:%M:%S.%gZ') AS timestamp, md5(n::VARCHAR) AS "messageId",
    {{'plan': 'pro', 'number': n, 'path': '/products/' || u % 977}} AS properties,
    u, t
FROM (SELECT n, hash(n + 1000000000) % $users AS u,
    make_timestamp(({int(datetime(2026, 1, 1).timestamp())} + hash(n + 2000000000)
    % {DAYS * 86_400})::BIGINT * 1000000) AS t FROM range($rows) AS numbers(n))
"""

#: What is in a file, without what the counts need.
_FILE = "SELECT * EXCLUDE (u, t) FROM rows"


@dataclass(frozen=True)
class Files:
    """The files of a run.

    Attributes:
        rows: how many rows each has.
        paths: the files by the names of their formats.
        marks: how many different users each event has on each day, all events together, by day.
    """

    rows: int
    paths: dict[str, Path]
    marks: dict[date, int]


def make_files(folder: Path, rows: int) -> Files:
    """Write the same rows in each format."""
    paths = {
        "NDJSON.gz": folder / "rows.ndjson.gz",
        "Parquet": folder / "rows.parquet",
        "NDJSON": folder / "rows.ndjson",
    }
    options = {
        "NDJSON.gz": "FORMAT json, COMPRESSION gzip",
        "Parquet": "FORMAT parquet",
        "NDJSON": "FORMAT json",
    }
    with duckdb.connect(config={"temp_directory": str(folder / "spilled")}) as connection:
        numbers = {"rows": rows, "users": rows // ROWS_OF_A_USER}
        connection.execute(f"CREATE TEMP TABLE rows AS {_ROWS}", numbers)
        for name, path in paths.items():
            connection.execute(f"COPY ({_FILE}) TO '{path}' ({options[name]})")
        counted = connection.execute(
            "SELECT t::DATE, count(*) FROM (SELECT DISTINCT t::DATE AS t, event, u FROM rows) "
            "GROUP BY ALL"
        ).fetchall()
    return Files(rows, paths, dict(counted))


def file_imports(url: str, rows: int, sample: int, rounds: int) -> list[dict[str, Any]]:
    """Measure imports and the loop in turns.

    Arguments:
        url: the URL of an empty database.
        rows: how many rows a file has.
        sample: how many of them the loop marks.
        rounds: how many times.
    """
    with tempfile.TemporaryDirectory() as name, redis.Redis.from_url(url) as store:
        files = make_files(Path(name), rows)
        runs: dict[tuple[str, str], list[dict[str, float]]] = {}
        contenders = [
            ("NDJSON.gz", "a loop of mark_event", "loop"),
            ("NDJSON.gz", "tallymark import", "512MB"),
            ("Parquet", "tallymark import", "512MB"),
            # The rows do not fit into this.
            ("NDJSON", "tallymark import --memory 64MB", "64MB"),
        ]
        for _ in range(rounds):
            for form, contender, how in contenders:
                store.flushdb()
                before = _server_time(store)
                if how == "loop":
                    measured = _loop(url, files.paths[form], sample)
                else:
                    measured = _program(url, files, form, how, Path(name))
                measured["server_us"] = 1e6 * (_server_time(store) - before) / measured["rows"]
                runs.setdefault((form, contender), []).append(measured)
        store.flushdb()
        sizes = {form: path.stat().st_size / 1e6 for form, path in files.paths.items()}
    loop = runs["NDJSON.gz", "a loop of mark_event"]
    return [
        {
            "file": form,
            "contender": contender,
            "rows_per_second": _median(taken, "rate"),
            "ratio": _median(taken, "rate") / _median(loop, "rate"),
            "cpu_us": _median(taken, "cpu_us"),
            "server_us": _median(taken, "server_us"),
            "file_mb": sizes[form],
            **({"peak_mb": peak} if (peak := max(each["peak_mb"] for each in taken)) else {}),
        }
        for (form, contender), taken in runs.items()
    ]


def _median(taken: list[dict[str, float]], name: str) -> float:
    values = sorted(each[name] for each in taken)
    return values[len(values) // 2]


def _server_time(store: Any) -> float:
    info = store.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _loop(url: str, path: Path, sample: int) -> dict[str, float]:
    """Mark the first rows of a file one by one, as a script without the program does."""
    begun, cpu = time.perf_counter(), time.process_time()
    with SyncTally.from_url(url, user_ids=str) as tally, gzip.open(path, "rt") as file:
        for line in itertools.islice(file, sample):
            row = json.loads(line)
            moment = datetime.fromisoformat(row["timestamp"].replace("Z", "+00:00"))
            tally.mark_event(row["event"], row["userId"], now=moment)
    return _measured(sample, time.perf_counter() - begun, time.process_time() - cpu, 0)


def _program(url: str, files: Files, form: str, memory: str, folder: Path) -> dict[str, float]:
    """Import a file with the program, and check the marks."""
    words = ["--url", url, "import", str(files.paths[form]), "--preset", "segment"]
    words += ["--user-ids", "str", "--memory", memory, "--folder", str(folder), "--quiet", "--json"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    (summary,) = json.loads(ran.stdout)
    _check(url, files, summary)
    return _measured(files.rows, seconds, cpu, int(ran.stderr.split()[-1]) / 1024)


def _measured(rows: int, seconds: float, cpu: float, peak: float) -> dict[str, float]:
    return {"rows": rows, "rate": rows / seconds, "cpu_us": 1e6 * cpu / rows, "peak_mb": peak}


def _check(url: str, files: Files, summary: dict[str, Any]) -> None:
    """Raise unless the database has the marks of the rows, and no others."""
    marks = sum(files.marks.values())
    if (summary["rows"], summary["rejected"], summary["marks"]) != (files.rows, 0, marks):
        raise WrongBitsError(f"{marks} marks of {files.rows} rows, but: {summary}")
    with SyncTally.from_url(url, user_ids=str) as tally:
        for number in range(0, DAYS, 7):
            day = BEGIN + timedelta(days=number)
            events = [f"event_{event:02d}" for event in range(EVENTS)]
            found = sum(tally.count(tally.day(event, day)) for event in events)
            if found != files.marks.get(day, 0):
                raise WrongBitsError(f"{found} marks on {day}, not {files.marks.get(day, 0)}")
