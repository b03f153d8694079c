"""Questions of new users, as they may type them, and the pages that answer them."""

from __future__ import annotations

import re

__all__ = ["ANSWERS", "QUESTIONS", "answered"]

#: What answers a question: patterns of addresses from the top of the site.
ANSWERS = {
    "ids that are UUIDs": r"(explanation/|index.*#|reference/options.*#)user-ids",
    "all arguments of retention": r"reference/(sync-)?tally.*\.retention"
    r"|reference/reports.*#retention",
    "to embed the heat map": r"how-to/embed-charts|reference/reports|reference/results.*\.to_html",
    "whether memory:// is shared": r"how-to/embedded-store|index\.html#the-embedded-store"
    r"|how-to/connect\.html($|#connect)|how-to/testing",
    "fork, threads, gunicorn, Celery": r"how-to/(scripts|task-queues|flask|django)"
    r"|index\.html#(scripts|the-embedded-store)|explanation/guarantees",
    "purge": r"how-to/delete-old-data|.*delete.before|reference/cli\.html#.*delete",
    "backup": r"how-to/backup",
    "to erase a user": r"how-to/erase-users|.*forget|cookbook\.html#a-user-wants-to-be-erased",
    "an ordered funnel": r"reference/reports.*#.*funnel|cookbook\.html#.*funnel"
    r"|reference/(sync-)?tally.*\.funnel|.*OrderedFunnel",
    "at least k days": r".*at.least|.*days.active|cookbook\.html#.*days",
}

QUESTIONS = {
    "ids that are UUIDs": (
        "UUID ids",
        "use UUIDs as user ids",
        "our users have a guid, not an int",
        "string user id",
    ),
    "all arguments of retention": (
        "retention arguments",
        "retention parameters",
        "all options of tally.retention",
        "what can I pass to retention?",
    ),
    "to embed the heat map": (
        "embed heat map",
        "show the retention heatmap in my own html page",
        "chart in a dashboard",
        "to_html fragment",
    ),
    "whether memory:// is shared": (
        "memory:// shared",
        "is memory:// shared between two tallies?",
        "in-memory store without a name",
        "in-memory fake for tests",
    ),
    "fork, threads, gunicorn, Celery": (
        "fork",
        "gunicorn preload workers",
        "thread safe",
        "celery prefork",
        "docker with several worker processes",
        "multiprocessing",
    ),
    "purge": (
        "purge",
        "delete old data",
        "cleanup of events older than a year",
        "set a TTL",
    ),
    "backup": (
        "backup",
        "dump and restore the database",
        "export everything to a file",
    ),
    "to erase a user": (
        "erase a user",
        "GDPR",
        "delete user",
        "right to be forgotten",
        "remove all data of an account",
    ),
    "an ordered funnel": (
        "ordered funnel",
        "funnel where steps happen in order",
        "conversion funnel within 7 days",
    ),
    "at least k days": (
        "at least k days",
        "users active on at least 5 days",
        "power users",
        "who was active 3 days or more",
    ),
}


def answered(answer: str, addresses: list[str]) -> bool:
    """Return whether one of the first three addresses answers a question."""
    return any(re.match(ANSWERS[answer], address) for address in addresses[:3])
