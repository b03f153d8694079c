"""Many processes mark the same new users; some are killed, or the server is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import marking_program
import pytest
import redis
from dictionary_check import Database, read_cluster, read_database
from marking_program import EVENT, user

from servers import RedisProcess, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clusters import Cluster
    from stores import Store

COUNT = 2_000
PROCESSES = 8

Program = subprocess.Popen[str]


@contextlib.contextmanager
def programs(url: str, count: int = COUNT) -> Iterator[list[Program]]:
    """Start the programs, alternately of both facades, and have them begin at once."""
    with contextlib.ExitStack() as stack:
        started: list[Program] = []
        for seed in range(PROCESSES):
            facade = ("async", "sync")[seed % 2]
            command = [sys.executable, marking_program.__file__, url, facade, str(count), str(seed)]
            program = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            started.append(stack.enter_context(program))
            stack.callback(program.kill)
        for program in started:
            assert lines(program, 1) == ["ready"]
        for program in started:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        yield started


def lines(program: Program, count: int) -> list[str]:
    """Return the next lines of a program."""
    assert program.stdout is not None
    return [program.stdout.readline().rstrip("\n") for _ in range(count)]


def acknowledged(program: Program, *, killed: bool = False) -> set[int]:
    """Wait for the end of a program; return which of its marks were acknowledged."""
    assert program.stdout is not None
    indexes = [int(line) for line in program.stdout if line.endswith("\n")]
    code = program.wait()
    assert code == (-9 if killed else 0)
    return set(indexes)


def check(database: Database, indexes: Sequence[int] | set[int] | range) -> None:
    """Check that some users were marked, each has a number, and nobody else was."""
    users = {user(index) for index in indexes}
    assert set(database.numbers) == users
    assert database.users == {f"{EVENT}_u": users}
    assert len(set(database.numbers.values())) == len(users)


def test_processes_mark_the_same_new_users(redis_store: Store) -> None:
    with programs(redis_store.url) as started:
        for program in started:
            assert acknowledged(program) == set(range(COUNT))
    database = read_database(redis_store.raw)
    check(database, range(COUNT))
    assert set(database.numbers.values()) == set(range(COUNT))


def test_processes_on_a_cluster(redis_cluster: Cluster) -> None:
    redis_cluster.flush()
    with programs(redis_cluster.url) as started:
        for program in started:
            assert acknowledged(program) == set(range(COUNT))
    check(read_cluster(redis_cluster), range(COUNT))
    redis_cluster.flush()


@pytest.mark.parametrize("on", ["server", "cluster"])
def test_processes_are_killed(on: str, request: pytest.FixtureRequest) -> None:
    store: Any = request.getfixturevalue(f"redis_{'store' if on == 'server' else 'cluster'}")
    if on == "cluster":
        store.flush()
    marked: set[int] = set()
    with programs(store.url) as started:
        for number, program in enumerate(started[:-1]):
            # Each is in the middle of a write, as it has acknowledged some of many.
            marked.update(map(int, lines(program, 40 * (number + 1))))
            program.kill()
        started[-1].kill()
        for program in started:
            marked |= acknowledged(program, killed=True)
    database = read_database(store.raw) if on == "server" else read_cluster(store)
    # Marks without an acknowledgement may have been applied.
    (users,) = database.users.values()
    assert {user(index) for index in marked} <= users <= {user(index) for index in range(COUNT)}
    assert set(database.numbers) == users
    if on == "cluster":
        store.flush()


def test_the_server_is_killed(tmp_path: Path) -> None:
    aof = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))
    server, inspected = RedisProcess(*aof), RedisProcess(*aof)
    with running(server), programs(server.url) as started:
        marked: set[int] = set()
        for program in started[:3]:
            marked.update(map(int, lines(program, 150)))
            server.kill()
            # The programs do not know this one, so it stays as the kill has left it.
            with running(inspected), redis.Redis(port=inspected.port) as raw:
                database = read_database(raw)
            users = set(database.numbers)
            assert database.users == {f"{EVENT}_u": users}  # no number without its mark
            assert {user(index) for index in marked} <= users
            server.start()
        for program in started:
            marked |= acknowledged(program)
        assert marked == set(range(COUNT))
        with redis.Redis(port=server.port) as raw:
            check(read_database(raw), range(COUNT))
