"""The handshake of a tally with a database: the check that both have the same key schema. Pure.

The number of shards, and the type of the user ids, decide which keys and bits belong to a user,
so two tallies with different ones would not see each other's marks. The first mark of a tally
that has either writes both to the schema key, which is no bitmap. Every tally reads that key
before its first command.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .._core import encoding
from .._core.failures import copied, unexpected_reply
from .._core.keys import scan_pattern
from .._core.untrusted import reraise_from_handler, shown
from .._core.user_ids import BUCKETS
from ..errors import CommandError, WrongSchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._core.keys import KeySchema

__all__ = ["Handshake"]

#: The versions of the schema key.
_VERSIONS: Final = (1, 2)

#: Writes the schema key of a database with ids of any type, in the plain format otherwise, unless
#: it has bitmaps already: a tally without ``user_ids`` made them. KEYS: schema key, stamp of the
#: ids. ARGV: the value, a pattern of keys with the prefix. Looks at ten thousand keys at most,
#: once in the life of a database.
_WRITE_SCHEMA: Final = b"""\
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
  local cursor, rounds = '0', 0
  repeat
    local reply = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', 1000)
    for _, key in ipairs(reply[2]) do
      if string.find(key, '_u$') or string.find(key, '_W?%d[%d%-]*$') then return 'bitmaps' end
    end
    cursor, rounds = reply[1], rounds + 1
  until cursor == '0' or rounds == 10
end
return redis.call('SET', KEYS[1], ARGV[1], 'NX')
"""

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
        self._stored = schema.stored
        self._dictionary = schema.dictionary
        self._pattern = scan_pattern(schema, "", None)
        self._prefix = schema.prefix

    def commands(self, *, marking: bool) -> tuple[bytes, int]:
        """Return the encoded commands, and how many replies they have.

        Arguments:
            marking: whether a mark follows. A tally with shards, or with ids of another type,
                writes the schema key then, if the key is missing.
        """
        get = encoding.command(b"GET", self.key)
        if not marking or self._stored is None:
            return get, 1
        schema = json.dumps(self._stored).encode()
        if self._dictionary is not None and self._stored["shards"] is None:
            keys = self.key, self._dictionary.key(0, "stamp")
            script = (b"EVAL", _WRITE_SCHEMA, b"2", *keys, schema, self._pattern)
            return encoding.command(*script) + get, 2
        return encoding.command(b"SET", self.key, schema, b"NX") + get, 2

    def check(self, replies: Sequence[Any]) -> None:
        """Check the replies.

        Raises:
            WrongSchemaError: the database has another schema than the tally.
            CommandError: Redis refused a command.
        """
        self._check(replies)
        self.checked = True

    def wanted(self, *, marking: bool) -> bool:
        """Return whether the handshake is needed before a mark, or before a query."""
        return not self.done and (marking or not self.checked)

    def _check(self, replies: Sequence[Any]) -> None:
        *written, value = replies
        if written == [b"bitmaps"] and value is None:
            raise WrongSchemaError(
                f"the database has marks with the prefix {shown(self._prefix)} that were made "
                "without user_ids; give their users ids with tallymark.migrate, or use another "
                "prefix"
            )
        if value is not None and not isinstance(value, bytes | CommandError):
            raise unexpected_reply(value)
        refusal = next((reply for reply in replies if isinstance(reply, CommandError)), None)
        if refusal is not None:
            if str(refusal).startswith("MOVED"):
                raise copied(refusal, f"{refusal}; {_IN_A_CLUSTER}")
            if self._stored is not None:
                raise copied(refusal, f"Redis refused: {refusal}")
            # A tally with the plain format needs no permission for the schema key.
            self.done = True
        elif value is not None:
            self._check_schema(value)
            self.done = True
        else:
            # The key is missing: a tally that needs it reads it again before its next call.
            self.done = self._stored is None

    def _check_schema(self, value: Any) -> None:
        try:
            schema = json.loads(value)
            version, shards = schema["version"], schema["shards"]
            user_ids, buckets = schema.get("user_ids"), schema.get("buckets")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reraise_from_handler(error)
            version = shards = user_ids = buckets = None
        own = self._stored or {}
        if version not in _VERSIONS or buckets not in {None, BUCKETS}:
            raise WrongSchemaError(
                f"the key {shown(self.key.decode())} tells how this database is sharded, in a way "
                f"that this release of tallymark does not know: {shown(value)}"
            )
        if shards != own.get("shards"):
            here = "none" if own.get("shards") is None else own["shards"]
            raise WrongSchemaError(
                f"the database has shards={shards} for the prefix {shown(self._prefix)}, "
                f"and this tally {here}; pass shards={shards}, or use another prefix"
            )
        if user_ids != own.get("user_ids"):
            there, here = _in_python(user_ids), _in_python(own.get("user_ids"))
            raise WrongSchemaError(
                f"the database has user_ids={there} for the prefix {shown(self._prefix)}, "
                f"and this tally user_ids={here}; pass user_ids={there}, or use another prefix"
            )


def _in_python(user_ids: Any) -> Any:
    """Return the type of the ids as it is written in Python."""
    return "uuid.UUID" if user_ids == "uuid" else user_ids
