"""The servers that the tests start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis

from servers import RedisProcess, running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_server_loads_nothing_that_another_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(RedisProcess()) as server, redis.Redis(port=server.port) as raw:
        raw.set("left", 1)
        raw.save()  # as a primary does for its replicas
    assert not list(tmp_path.iterdir())
    with running(server), redis.Redis(port=server.port) as raw:
        assert not raw.exists("left")
