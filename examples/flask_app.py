"""A Flask app that marks its requests and logins, and events in its views.

    pip install flask flask-login "tallymark[memory]"
    flask --app examples/flask_app.py run

Set TALLYMARK_URL to a Redis database; without it, the marks go to a store
inside this process. For several workers, set it:

    gunicorn --chdir examples --worker-class gthread --threads 8 flask_app:app
"""

import os

from flask import Flask, abort, request
from flask_login import LoginManager, UserMixin, login_required, login_user

from tallymark import Granularity
from tallymark.integrations.flask import Tallymark, add_error_handlers, unmarked

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "only for this example")
# The ids are untrusted input: the limit keeps a bitmap below 1.25 MB.
app.config.from_mapping(
    TALLYMARK_URL=os.environ.get("TALLYMARK_URL", "memory://"),
    TALLYMARK_MAX_USER_ID=10_000_000,
)
stats = Tallymark(app)
# Marks each user of a successful request as active, after the view, and each login.
stats.mark_requests()
stats.mark_logins()
# Responds with 400 to ids and names that tallymark refuses, and with 503 while Redis is away.
add_error_handlers(app)


class User(UserMixin):
    """A user, whom a real app loads from its database."""

    def __init__(self, user_id: str) -> None:
        self.id = user_id


LoginManager(app).user_loader(User)


@app.post("/login/<int:user_id>")
def login(user_id: int) -> str:
    """Log a user in; a real app checks a password first."""
    login_user(User(str(user_id)))
    return "welcome"


@app.get("/pages/<page>")
@login_required
@stats.marks("page:view")
def page(page: str) -> dict[str, str]:
    """Respond without waiting for the mark."""
    return {"page": page}


@app.post("/users/<int:user_id>/song")
def song(user_id: int) -> dict[str, bool]:
    """Mark an event, and return whether it is the user's first one today."""
    flipped = stats.tally.mark_event("song:played", user_id)
    return {"first_today": Granularity.DAY in flipped}


@app.get("/stats/<event>/today")
@unmarked
def today(event: str) -> dict[str, int]:
    """Count an event's users of today, and how many of them were active yesterday too."""
    day = stats.tally.day(event)
    users, again = stats.tally.counts([day, day & day.prev()])
    return {"users": users, "again": again}


@app.get("/stats/<event>/users")
@unmarked
def users(event: str) -> list[int]:
    """List an event's users of this month, page by page."""
    start, limit = (request.args.get(name, type=int) for name in ("start", "limit"))
    if limit is not None and limit > 1000:
        abort(400, "at most 1000 users at once")
    tally = stats.tally
    return list(tally.users(tally.month(event), start=start or 0, limit=limit or 100))
