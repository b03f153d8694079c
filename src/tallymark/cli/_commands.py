"""All commands, and the options that all of them have.

To add a command, write a function in a module of its group, and add a line to `COMMANDS`. The
module is imported when the command runs. The function's signature is the command line: what is
before ``/`` is an argument, what is after ``*`` an option; ``run: Run`` gets the `Invocation`.
Its docstring is the help: a line, examples behind "For example:", and "Arguments:". It prints
with ``run.output``, raises, and returns ``None`` for 0 or an exit code of `_errors`. So that
cyclopts can evaluate annotations, its module has no ``from __future__ import annotations``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALL", "COMMANDS", "OPTIONS", "PERIOD"]

#: The import path of each command, without ``tallymark.cli.``, its group, and what it does.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "mark": ("_marks:mark", "Marks", "Record that a user did something"),
    "unmark": ("_marks:unmark", "Marks", "Take a mark back"),
    "mark-many": ("_marks:mark_many", "Marks", "Mark the users of a file"),
    "unmark-many": ("_marks:unmark_many", "Marks", "Take back the marks of the users of a file"),
    "mark-unique": ("_marks:mark_unique", "Marks", "Set a user's flag"),
    "unmark-unique": ("_marks:unmark_unique", "Marks", "Clear a user's flag"),
    "mark-unique-many": ("_marks:mark_unique_many", "Marks", "Set the flag of the users of a file"),
    "unmark-unique-many": (
        "_marks:unmark_unique_many",
        "Marks",
        "Clear the flag of the users of a file",
    ),
    "count": ("_reads:count", "Reads", "How many users are in an event set"),
    "users": ("_reads:users", "Reads", "The ids of the users in an event set"),
    "contains": ("_reads:contains", "Reads", "Whether a user is in an event set"),
    "is-empty": ("_reads:is_empty", "Reads", "Whether an event set has no users"),
    "history": ("_reads:history", "Reads", "In which periods a user did something"),
    "events": ("_reads:events", "Reads", "The names of events"),
    "periods": ("_reads:periods", "Reads", "For which periods an event has bitmaps"),
    "memory": ("_reads:memory", "Reads", "How many bytes bitmaps take"),
    "numbers": ("_reads:numbers", "Reads", "The bits of users, by their ids"),
    "ids": ("_reads:ids", "Reads", "The ids of users, by their bits"),
    "retention": ("_reports:retention", "Reports", "Who comes back later"),
    "funnel": ("_reports:funnel", "Reports", "Who takes several steps"),
    "trend": ("_reports:trend", "Reports", "Active users over time"),
    "lifecycle": ("_reports:lifecycle", "Reports", "New, returning, resurrected, dormant users"),
    "stickiness": ("_reports:stickiness", "Reports", "DAU, MAU and DAU/MAU of a day"),
    "days-active": ("_reports:days_active", "Reports", "On how many days users were active"),
    "streak": ("_reports:streak", "Reports", "How many days in a row a user was active"),
    "streaks": ("_reports:streaks", "Reports", "Users by their current run of days"),
    "save": ("_maintenance:save", "Changes", "Save an event set as a flag"),
    "delete": ("_maintenance:delete", "Changes", "Delete bitmaps"),
    "delete-all": ("_maintenance:delete_all", "Changes", "Delete all bitmaps of a prefix"),
    "delete-before": ("_purging:delete_before", "Changes", "Delete bitmaps of old periods"),
    "apply-expiry": ("_purging:apply_expiry", "Changes", "Set the expiry of bitmaps that exist"),
    "forget": ("_maintenance:forget", "Changes", "Clear all bits of a user"),
    "merge": ("_maintenance:merge", "Changes", "Move all bits of a user to another one"),
    "import": ("_transfer:import_", "Data", "Mark the events of files"),
    "export": ("_export:export", "Data", "Write the users of every bitmap to a file: a backup"),
    "migrate": ("_migrate:migrate", "Data", "Copy a database into another one"),
    "doctor": ("_doctor:doctor", "Other", "Examine the database and its servers"),
    "demo": ("_demo:demo", "Other", "Show reports of an invented app"),
    "completion": ("_about:completion", "Other", "Print completions for a shell"),
    "help": ("_about:help_", "Other", "Describe all commands, and the options of all commands"),
}

#: The title of the options that all commands have.
ALL: Final = "Options of all commands"

#: The title of the options for the period of an event.
PERIOD: Final = "Period (default: today)"

#: The options that all commands have.
OPTIONS: Final[dict[str, str]] = {
    "url": "the store; or env:NAME, file:PATH (default: TALLYMARK_URL, or localhost)",
    "prefix": "what all keys begin with (default: trackist_)",
    "user-ids": "the type of the user ids: str, uuid, int or bytes (default: offsets)",
    "shards": "the number of shards of the database, or none (default: none; of clusters 16)",
    "timezone": "the time zone of the periods (default: UTC)",
    "yearly": "also mark the year (default: years are read from their months)",
    "max-user-id": "the largest user id that is accepted (default: 2**32 - 1)",
    "read-from": "primary, replicas, or a URL as of --url: where reads go (default: primary)",
    "replicas": "how many replicas must have a mark before it is confirmed (default: 0)",
    "timeout": "how many seconds a request may take",
    "expire": "how long bitmaps live, as in day=400d; may be repeated (default: for ever)",
    "json": "print an array of objects",
    "csv": "print CSV with a header",
    "html": "also write a page to this file",
    "yes": "destroy without asking",
    "debug": "print tracebacks",
}
