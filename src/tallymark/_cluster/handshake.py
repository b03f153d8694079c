"""What a tally and a database tell each other first: how its users are sharded. Pure.

The number of shards decides where each user's bits are, so two tallies that differ in
it would not see each other's marks. It is written to the database once, under a key
that is no bitmap's, and every tally looks there before its first command.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .._core import resp as wire
from .._core.failures import copied, unexpected_reply
from .._core.untrusted import let_handlers_pass, shown
from ..errors import CommandError, WrongSchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.keys import KeySchema

__all__ = ["Handshake"]

#: Of the key format with shards.
_VERSION: Final = 1

_IN_A_CLUSTER: Final = (
    "this server is a node of a Redis Cluster; use a redis+cluster:// URL, or a RedisCluster"
)


class Handshake:
    """The first commands to a database.

    Attributes:
        done: whether the database is known to be sharded as this tally is.
        asked: whether it was asked, and need not have been able to tell.
        key: where that is written.
    """

    def __init__(self, schema: KeySchema) -> None:
        self.done = False
        self.asked = False
        self.key = schema.schema_key
        self._shards = schema.shards
        self._prefix = schema.prefix

    def commands(self, *, marking: bool) -> tuple[bytes, int]:
        """Return what to send, and how many replies it has.

        Arguments:
            marking: whether a mark is to follow, so that the database will have users.
        """
        get = wire.command(b"GET", self.key)
        if not marking or self._shards is None:
            return get, 1
        note = json.dumps({"version": _VERSION, "shards": self._shards}).encode()
        return wire.command(b"SET", self.key, note, b"NX") + get, 2

    def check(self, replies: Sequence[Any]) -> None:
        """Take note of the replies.

        Raises:
            WrongSchemaError: the database is sharded in another way.
            CommandError: the server does not tell.
        """
        self._take(replies)
        self.asked = True

    def wanted(self, *, marking: bool) -> bool:
        """Return whether to greet before a mark, or before anything else."""
        return not self.done and (marking or not self.asked)

    def _take(self, replies: Sequence[Any]) -> None:
        *_, told = replies
        if told is not None and not isinstance(told, bytes | CommandError):
            raise unexpected_reply(told)
        refusal = next((each for each in replies if isinstance(each, CommandError)), None)
        if refusal is not None:
            if str(refusal).startswith("MOVED"):
                raise copied(refusal, f"{refusal}; {_IN_A_CLUSTER}")
            if self._shards is not None:
                raise copied(refusal, f"Redis refused: {refusal}")
            # Without shards, it need not be able to tell.
            self.done = True
        elif told is not None:
            self._check_note(told)
            self.done = True
        else:
            # Who shards has to ask again, until somebody has written it.
            self.done = self._shards is None

    def _check_note(self, note: Any) -> None:
        try:
            found = json.loads(note)
            version, shards = found["version"], found["shards"]
        except (ValueError, TypeError, KeyError) as error:
            let_handlers_pass(error)
            version, shards = None, None
        if version != _VERSION:
            raise WrongSchemaError(
                f"the key {shown(self.key.decode())} tells how this database is sharded, in a way "
                f"that this release of tallymark does not know: {shown(note)}"
            )
        if shards != self._shards:
            here = "none" if self._shards is None else self._shards
            raise WrongSchemaError(
                f"the database has shards={shards} for the prefix {shown(self._prefix)}, "
                f"and this tally {here}; pass shards={shards}, or use another prefix"
            )
