"""Flask: a tally for each app, and marks of its requests, views and logins.

Marks of requests go through a buffer (`SyncTally.buffered`), which a thread sends: they neither
delay nor break a response, also while Redis is away.

The tally is blocking, also for async views: Flask runs each of these in an event loop of its own,
which ends with the view. A `Tally` would have to connect anew in each of them, and a call that
blocks such a loop holds up nothing but its own request, as in any other view.
"""

from __future__ import annotations

from .extension import Tallymark
from .requests import add_error_handlers, skip_mark, unmarked

__all__ = ["Tallymark", "add_error_handlers", "skip_mark", "unmarked"]
