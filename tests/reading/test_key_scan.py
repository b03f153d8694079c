"""A scan whose server restarts or fails over: the cursor of SCAN is of one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tallymark import PermissionDeniedError
from tallymark._core.context import Context
from tallymark._core.options import Options
from tallymark._reading.key_scan import KeyScan
from tallymark._reading.requests import Checkpoint, ListNodes, Request, Scatter

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = [b"trackist_a_u", b"trackist_b_u"]


class Server:
    """Answers the requests of a scan: each key is in a step of its own."""

    def __init__(self, identities: list[Any], nodes: list[str]) -> None:
        self.identities = iter(identities)
        self.nodes = nodes
        self.cursors: list[bytes] = []

    def answer(self, effect: Any) -> Any:
        if isinstance(effect, ListNodes):
            return self.nodes
        if isinstance(effect, Scatter):
            return [self.answer(request) for _, request in effect.parts]
        assert isinstance(effect, Request)
        ((name, *arguments), *further) = effect.commands
        if name == b"INFO":
            identity = next(self.identities)
            if isinstance(identity, Exception):
                return [identity] * len(effect.commands)
            run_id, epoch = identity
            info = b"# Server\r\nredis_version:7\r\nrun_id:%b\r\n" % run_id
            return [info, b"cluster_current_epoch:%d\r\n" % epoch][: 1 + len(further)]
        assert name == b"SCAN"
        self.cursors.append(arguments[0])
        return [[b"7", [KEYS[0]]]] if arguments[0] == b"0" else [[b"0", [KEYS[1]]]]


def scanned(server: Server, **options: Any) -> list[str]:
    """Return the events of a scan."""
    context = Context.of("db", Options(**options), lambda: 0.0)
    scan = KeyScan(context, changes=True)

    def bitmaps() -> Iterator[str]:
        while scan.has_more:
            query = scan.next()
            effect = next(query)
            try:
                while True:
                    reply = None if isinstance(effect, Checkpoint) else server.answer(effect)
                    effect = query.send(reply)
            except StopIteration as end:
                yield from (bitmap.event for bitmap in end.value)

    return list(bitmaps())


A, B = (b"aaaa", 1), (b"bbbb", 1)


@pytest.mark.parametrize(
    ("identities", "scans"),
    [
        ([A, A], 1),
        ([A, B, B, B], 2),
        ([A, B, B, A, A, A], 3),
        ([PermissionDeniedError("NOPERM"), PermissionDeniedError("NOPERM")], 1),
    ],
    ids=["the same", "restarted", "restarted twice", "denied"],
)
def test_a_scan_is_of_one_process(identities: list[Any], scans: int) -> None:
    server = Server(identities, [""])
    assert scanned(server) == ["a", "b"] * scans
    assert server.cursors == [b"0", b"7"] * scans


def test_a_scan_is_of_one_layout_of_a_cluster() -> None:
    later = (b"aaaa", 2)
    server = Server([A, later, later, later], ["127.0.0.1:7000"])
    assert scanned(server) == ["a", "b"] * 2
    # On one server, nobody asks for the epoch.
    assert scanned(Server([A, later], [""])) == ["a", "b"]


def test_replicas_may_answer_in_turn() -> None:
    context = Context.of("db", Options(read_from="replicas"), lambda: 0.0)
    scan = KeyScan(context)
    query = scan.next()
    assert isinstance(next(query), ListNodes)
    request: Any = query.send([""])
    assert request.commands[0][0] == b"SCAN" or isinstance(request, Scatter)
