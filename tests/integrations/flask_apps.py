"""An app of Flask with users of Flask-Login, for the tests and for servers."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from flask.views import MethodView
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from tallymark.integrations.flask import Tallymark, skip_mark, unmarked


class User(UserMixin):
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def make_app(extension: Tallymark, **config: Any) -> Flask:
    """Make an app whose users may log in with any id."""
    app = Flask(__name__)
    app.config.update({"SECRET_KEY": "of the tests", "TESTING": True, **config})
    LoginManager(app).user_loader(User)
    extension.init_app(app)

    @app.get("/login/<user_id>")
    def log_in(user_id: str) -> str:
        login_user(User(user_id))
        return "welcome"

    @app.get("/quiet-login/<user_id>")
    def log_in_unmarked(user_id: str) -> str:
        skip_mark()
        login_user(User(user_id))
        return "welcome"

    @app.get("/logout")
    def log_out() -> str:
        logout_user()
        return "bye"

    @app.get("/me")
    def me() -> str:
        return str(current_user.get_id())

    @app.get("/async")
    async def asynchronous() -> str:
        return str(current_user.get_id())

    @app.get("/public")
    def public() -> str:
        return "for everybody"

    @app.get("/broken")
    def broken() -> tuple[str, int]:
        return str(current_user.get_id()), 500

    @app.get("/quiet")
    @unmarked
    def quiet() -> str:
        return str(current_user.get_id())

    @app.get("/skipped")
    @extension.marks("song:played")
    def skipped() -> str:
        skip_mark()
        return str(current_user.get_id())

    @app.get("/song")
    @extension.marks("song:played")
    def song() -> str:
        return f"la la la, {current_user.get_id()}"

    @app.get("/async-song")
    @extension.marks("song:played")
    async def async_song() -> str:
        return f"la la la, {current_user.get_id()}"

    class Quiet(MethodView):
        decorators = [unmarked]  # noqa: RUF012

        def get(self) -> str:
            return str(current_user.get_id())

    app.add_url_rule("/quiet-class", view_func=Quiet.as_view("quiet_class"))
    return app


def create_app() -> Flask:
    """Make the app that a server runs."""
    extension = Tallymark()
    extension.mark_requests()
    extension.mark_requests("visit", user=lambda request: (request.view_args or {}).get("number"))
    extension.mark_logins()
    app = make_app(extension, TESTING=False)
    app.add_url_rule("/visit/<int:number>", view_func=lambda number: f"{number} {os.getpid()}")
    return app
