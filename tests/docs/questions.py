"""Questions of new users, as they may type them, and the pages that answer them."""

from __future__ import annotations

import re

__all__ = ["ANSWERS", "QUESTIONS", "answered"]

#: What answers a question: patterns of addresses from the top of the site.
ANSWERS = {
    "ids that are UUIDs": r"explanation/user-ids|reference/options.*#user-ids"
    r"|how-to/fastapi.*#users-with-uuids|how-to/migrate.*#from-numbers-to-uuids",
    "all arguments of retention": r"reference/(sync-)?tally.*\.retention$",
    "to embed the heat map": r"how-to/embed-charts|reference/reports|reference/results.*\.to_html",
    "whether memory:// is shared": r"how-to/embedded-store|how-to/testing"
    r"|how-to/connect\.html($|#connect)|how-to/install\.html#extras",
    "fork, threads, gunicorn, Celery": r"how-to/(scripts|task-queues|flask|django)"
    r"|explanation/guarantees",
    "purge": r"how-to/delete-old-data|.*delete.before|reference/cli\.html#.*delete",
    "backup": r"how-to/backup",
    "to erase a user": r"how-to/erase-users|.*forget|cookbook\.html#a-user-wants-to-be-erased",
    "an ordered funnel": r"reference/reports.*#.*funnel|cookbook\.html#.*funnel"
    r"|reference/(sync-)?tally.*\.funnel|.*OrderedFunnel",
    "at least k days": r".*at.least|.*days.active|cookbook\.html#.*days",
    "when Redis fails": r"explanation/faults|reference/errors\.html#storeunavailableerror",
    "marks that return at once": r"how-to/buffered-marks|.*\.buffered$",
    "which facade": r"how-to/scripts|how-to/mark-events.*#functions-or-a-tally"
    r"|reference/sync-tally\.html$",
    "requirements and installation": r"how-to/install",
    "licence": r"how-to/install\.html#license",
    "to upgrade": r"how-to/install\.html#upgrade",
    "to rename an event": r"how-to/mark-events\.html#rename-an-event",
    "segments": r"how-to/read-and-combine\.html#save|.*\.save$|reference/reports\.html#segments"
    r"|reference/results\.html#.*\.segments$",
    "limits of memory": r"how-to/memory-limits|explanation/memory|reference/options.*#max-user-id",
    "what a message means": r"reference/errors",
    "the constructor": r"reference/((sync-)?tally|options)\.html",
}

QUESTIONS = {
    "ids that are UUIDs": (
        "ids that are UUIDs",
        "UUID ids",
        "UUID",
        "use UUIDs as user ids",
        "our users have a guid, not an int",
        "string user id",
        "id column is a UUID",
        "my primary keys are UUIDs, how do I mark them",
        "int64 ids",
        "guid keys",
    ),
    "all arguments of retention": (
        "all arguments of retention",
        "retention arguments",
        "retention parameters",
        "all options of tally.retention",
        "what can I pass to retention?",
    ),
    "to embed the heat map": (
        "embed the heat map",
        "embed heat map",
        "show the retention heatmap in my own html page",
        "chart in a dashboard",
        "to_html fragment",
    ),
    "whether memory:// is shared": (
        "whether memory:// is shared",
        "memory:// shared",
        "is memory:// shared between two tallies?",
        "in-memory store without a name",
        "in-memory fake for tests",
        "do I need redis or is there an in-memory mode",
    ),
    "fork, threads, gunicorn, Celery": (
        "fork, threads, gunicorn, Celery",
        "fork",
        "gunicorn preload workers",
        "thread safe",
        "thread-safety",
        "celery prefork",
        "docker with several worker processes",
        "multiprocessing",
        "multiple processes",
    ),
    "purge": (
        "purge",
        "delete old data",
        "cleanup of events older than a year",
        "set a TTL",
        "drop last year's marks to free memory",
        "retention policy for old bitmaps",
    ),
    "backup": (
        "backup",
        "dump and restore the database",
        "export everything to a file",
        "how do I back up my marks",
        "backing up",
        "disaster recovery",
    ),
    "to erase a user": (
        "erase a user",
        "GDPR",
        "delete user",
        "right to be forgotten",
        "remove all data of an account",
    ),
    "an ordered funnel": (
        "an ordered funnel",
        "ordered funnel",
        "funnel where steps happen in order",
        "conversion funnel within 7 days",
        "users who did A then B",
    ),
    "at least k days": (
        "at least k days",
        "users active on at least 5 days",
        "power users",
        "who was active 3 days or more",
        "logged in on 4 out of 7 days",
        "active 5 days out of 7",
        "3 of 7 days",
        "x days out of y",
        "frequent users",
    ),
    "when Redis fails": (
        "what happens when redis is down",
        "redis unavailable",
        "redis outage",
        "redis crash",
        "our redis crashed",
    ),
    "marks that return at once": (
        "fire and forget marks without await",
        "fire-and-forget",
        "mark without waiting",
    ),
    "which facade": (
        "difference between Tally and SyncTally",
        "Tally or SyncTally",
        "blocking api",
    ),
    "requirements and installation": (
        "which python versions are supported",
        "does it work on windows",
        "docker compose",
    ),
    "licence": ("license", "licence", "which license has it?"),
    "to upgrade": ("how to upgrade", "upgrade", "upgrading to a newer version"),
    "to rename an event": ("rename an event", "rename event", "change the name of an event"),
    "segments": ("user segments", "save a segment", "segments of a report"),
    "limits of memory": ("limit memory usage", "memory usage", "memory limit"),
    "what a message means": (
        "too many bitmaps, in ranges of days alone",
        "event must be a non-empty str without control characters",
        "this tally is closed",
        "max number of clients reached",
        "InvalidValueError: user id must be in [0, 4294967295], got -1",
        "Redis did not answer within 5 s; marks may or may not have been applied",
        "this Tally has connections of another event loop; make one for each loop",
    ),
    "the constructor": ("constructor", "Tally constructor arguments", "class constructor"),
}


def answered(answer: str, addresses: list[str]) -> bool:
    """Return whether one of the first three addresses answers a question."""
    return any(re.match(ANSWERS[answer], address) for address in addresses[:3])
