"""A Flask app, each request of which marks one event with the library of a contender."""

from __future__ import annotations

import os
from typing import Any

from contenders import BLOCKING
from flask import Flask

app = Flask(__name__)
name = os.environ["BENCHMARK_CONTENDER"]
mark = BLOCKING[name](os.environ["TALLYMARK_URL"]) if name in BLOCKING else None
if name == "mark_requests":
    from tallymark.integrations.flask import Tallymark

    def user_of(request: Any) -> int:
        """Return the user in the path."""
        user_id: int = request.view_args["user_id"]
        return user_id

    Tallymark(app).mark_requests(name, user=user_of)


@app.post("/<event>/<int:user_id>/login")
def login(event: str, user_id: int) -> dict[str, int]:
    """Mark the event, if there is a library."""
    if mark is not None:
        mark(event, user_id)
    return {"user_id": user_id}
