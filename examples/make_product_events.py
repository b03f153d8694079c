"""Make a sample: what the users of an invented app did from February to May 2026.

    python examples/make_product_events.py > product_events.csv

The app, for teams that plan projects, starts on February 1. There are fewer users at weekends;
later cohorts stay longer; a release in April breaks the app on Android for a week; and from April
on, half of the new users get a new onboarding. The numbers come from a seeded generator, so every
run makes the same events. The cookbook (docs/cookbook.md) uses them. ``tallymark demo`` shows the
same app, up to today.
"""

import csv
import sys
from datetime import date

from tallymark.cli.sample import SampleApp

APP = SampleApp(first=date(2026, 2, 1), days=120, size=2000)

if __name__ == "__main__":
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("time", "event", "user_id"))
    for moment, event, numbers in APP.events():
        writer.writerows((moment.isoformat(), event, number) for number in numbers)
