"""Tests of the FastAPI app beside it, with the fixtures that tallymark brings for pytest.

    pip install fastapi uvicorn httpx pytest "tallymark[memory]"
    pytest examples/test_fastapi_app.py

Each test has an empty store in this process; with --tallymark-url, a database of a Redis server.
"""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fastapi_app import app
from freezegun import freeze_time

from tallymark import SyncTally
from tallymark.integrations.testing import Outage


@pytest.fixture
def client(tally_url: str) -> Iterator[TestClient]:
    """Start the app, in a loop of its own: its tally is on the store of the test."""
    with TestClient(app) as started:
        yield started


def test_the_first_login_of_a_day(client: TestClient) -> None:
    """The response tells the first login of a day from the others."""
    for day in (1, 2):
        with freeze_time(datetime(2026, 3, day, 12, tzinfo=timezone.utc)):
            assert client.post("/users/7/login").json() == {"first_today": True}
            assert client.post("/users/7/login").json() == {"first_today": False}
            assert client.post("/users/8/login").json() == {"first_today": True}
            assert client.get("/stats/login/today").json() == {"users": 2, "again": 2 * (day - 1)}
    with freeze_time(datetime(2026, 3, 3, tzinfo=timezone.utc)):
        assert client.get("/stats/login/users?limit=1").json() == [7]


def test_requests_are_marked(tally_url: str, sync_tally: SyncTally[Any]) -> None:
    """Marks of requests wait in a buffer, which the end of the app sends."""
    with TestClient(app) as client:
        assert client.get("/pages/home?user_id=7").json() == {"page": "home"}
        assert client.get("/pages/home").json() == {"page": "home"}
    for event in ("page:view", "active"):
        assert list(sync_tally.users(sync_tally.day(event))) == [7]


def test_an_id_that_is_too_large(client: TestClient, sync_tally: SyncTally[Any]) -> None:
    """An id beyond the limit is refused, and nothing is marked."""
    assert client.post("/users/10000001/login").status_code == 422
    assert sync_tally.event_names() == []


def test_a_full_store(client: TestClient, tallymark_outage: Outage) -> None:
    """Logins need the store, pages do not."""
    with tallymark_outage("full"):
        assert client.post("/users/7/login").status_code == 503
        assert client.get("/pages/home?user_id=7").status_code == 200
    assert client.post("/users/7/login").status_code == 200
