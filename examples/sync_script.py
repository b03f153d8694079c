"""Mark the events of a CSV file, from a plain blocking script.

    python examples/sync_script.py [FILE.csv]

Reads the columns time (ISO 8601), event and user_id. Without a file it reads
events.csv, beside this script. Set TALLYMARK_URL to a Redis database; without
it, the marks go to a store inside this process.
"""

import csv
import os
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

from tallymark import TallymarkError, configure
from tallymark import sync as tm


def mark_file(path: Path) -> Counter[str]:
    """Mark every row, and count the rows that were new that day, by event."""
    new: Counter[str] = Counter()
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                moment = datetime.fromisoformat(row["time"])
                flipped = tm.mark_event(row["event"], int(row["user_id"]), now=moment)
            except (ValueError, KeyError, TypeError, TallymarkError) as error:
                sys.exit(f"{path}: {row}: {error}")
            new[row["event"]] += bool(flipped)
    return new


if __name__ == "__main__":
    configure(os.environ.get("TALLYMARK_URL", "memory://"))
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("events.csv")
    for event, count in sorted(mark_file(source).items()):
        print(f"{event}: {count} new")
