"""The handshake of a tally with a database: the check that both have the same sharding. Pure.

The number of shards decides which keys have a user's bits, so two tallies with different
numbers would not see each other's marks. The first mark of a sharded tally writes the number
to the schema key, which is no bitmap. Every tally reads that key before its first command.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import copied, unexpected_reply
from .._core.untrusted import reraise_from_handler, shown
from ..errors import CommandError, WrongSchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.keys import KeySchema

__all__ = ["Handshake"]

#: The version of the key format with shards.
_VERSION: Final = 1

_IN_A_CLUSTER: Final = (
    "this server is a node of a Redis Cluster; use a redis+cluster:// URL, or a RedisCluster"
)


class Handshake:
    """The first commands to a database, and the check of their replies.

    Attributes:
        done: whether the sharding of the database is known, and is that of the tally.
        checked: whether `check` has passed; the schema key may have been missing.
        key: the schema key.
    """

    def __init__(self, schema: KeySchema) -> None:
        self.done = False
        self.checked = False
        self.key = schema.schema_key
        self._shards = schema.shards
        self._prefix = schema.prefix

    def commands(self, *, marking: bool) -> tuple[bytes, int]:
        """Return the encoded commands, and how many replies they have.

        Arguments:
            marking: whether a mark follows. A sharded tally writes the schema key then, if
                the key is missing.
        """
        get = encoding.command(b"GET", self.key)
        if not marking or self._shards is None:
            return get, 1
        schema = json.dumps({"version": _VERSION, "shards": self._shards}).encode()
        return encoding.command(b"SET", self.key, schema, b"NX") + get, 2

    def check(self, replies: Sequence[Any]) -> None:
        """Check the replies.

        Raises:
            WrongSchemaError: the database is sharded in another way than the tally.
            CommandError: Redis refused a command.
        """
        self._check(replies)
        self.checked = True

    def wanted(self, *, marking: bool) -> bool:
        """Return whether the handshake is needed before a mark, or before a query."""
        return not self.done and (marking or not self.checked)

    def _check(self, replies: Sequence[Any]) -> None:
        *_, value = replies
        if value is not None and not isinstance(value, bytes | CommandError):
            raise unexpected_reply(value)
        refusal = next((reply for reply in replies if isinstance(reply, CommandError)), None)
        if refusal is not None:
            if str(refusal).startswith("MOVED"):
                raise copied(refusal, f"{refusal}; {_IN_A_CLUSTER}")
            if self._shards is not None:
                raise copied(refusal, f"Redis refused: {refusal}")
            # A tally without shards needs no permission for the schema key.
            self.done = True
        elif value is not None:
            self._check_schema(value)
            self.done = True
        else:
            # The key is missing: a sharded tally reads it again before its next call.
            self.done = self._shards is None

    def _check_schema(self, value: Any) -> None:
        try:
            schema = json.loads(value)
            version, shards = schema["version"], schema["shards"]
        except (ValueError, TypeError, KeyError) as error:
            reraise_from_handler(error)
            version, shards = None, None
        if version != _VERSION:
            raise WrongSchemaError(
                f"the key {shown(self.key.decode())} tells how this database is sharded, in a way "
                f"that this release of tallymark does not know: {shown(value)}"
            )
        if shards != self._shards:
            here = "none" if self._shards is None else self._shards
            raise WrongSchemaError(
                f"the database has shards={shards} for the prefix {shown(self._prefix)}, "
                f"and this tally {here}; pass shards={shards}, or use another prefix"
            )
