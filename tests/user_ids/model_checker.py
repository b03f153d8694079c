"""A model checker of the protocol of user ids: explores every interleaving of a small system.

The search is breadth-first, so a counterexample is as short as possible. The model:

**Servers.** There are two. A server holds a `Data`: the forward direction of the dictionary
(``numbers``; the reverse one is written and erased by the same scripts, so the model derives
it), ``ids:next``, ``ids:stamp``, the bits of one bitmap, and ``ids:forgetting``. A stamp is
random: the model takes one that nobody holds. At first one server is the master, and the other
one its replica, which may lag: it copies the master's data at any time (*replicate*), so that a
failover loses a suffix of the log of any length. *promote* makes the replica a master. The old
one does not know it, and serves its connections, until *demote* makes it a replica of the new
one: it gets that one's data, and the ``WATCH``es of its connections are broken, but no
connection has to break. It refuses writes then, and may be promoted again. *flush* empties the
master.

**Clients.** There are two. A client has one connection, a cache of numbers, and executes one
operation after the other, which it chooses from a menu:

* marks and unmarks, as one write: a transaction (*exec*) for ids in the cache, a call of the
  *script* for all others, ``WATCH`` and ``GET`` of the stamp. Each is a step of its own, as
  commands of other connections may come in between. *exec* applies nothing if the connection's
  ``WATCH`` is broken.
* forget: *erase* (erases the mapping, renews the stamp, notes the number in the journal with a
  random token), then for each number in the journal *clear* (if the journal has the number:
  clears the bit, and then renews the token; replies with the token) and *end* (removes the
  number from the journal, if its token is the one of that reply; else *clear* follows again,
  since a failover has lost the first one). Each is a round trip. After a broken connection, the
  last command is sent again.
* sweep: as forget, without an id of its own. It is always possible.

A connection may *break* at each step: then commands that the server has not executed are lost,
or are executed at any later time (*late*), while the client connects to the master and sends
its operation again. The reply to a command that was executed may be lost. A client may *crash*:
it loses its operation too.

**Assumed:** a server does not become a replica, with all data of its new master, between two
commands of one write of which it has executed the first. A test shows that this is needed.

**Not in the model:** several bitmaps, several shards (nothing is cached there), expiries,
eviction, more than three ids.

**Properties.** In the data of each server, in each state:

1. No number belongs to two ids.
2. An id's bit is set if and only if the last thing that happened to the id, in the log of this
   server, was a mark: no unmark and no forget. The log of a server does not have what a failover
   has lost. So marks are neither lost nor do they set anyone else's bit.
3. A bit at a number without an id is set only while the number is in the journal.
4. The counter is above all numbers.
5. From each state, a state without unfinished operations and with an empty journal can be
   reached without any further fault.

`Rules` has the rules of the protocol. With any of them broken, a property must fail, in the
bounds that the tests give.

The search is in this module, the states and properties are in `model_state`, the steps in
`model_steps`.
"""

from __future__ import annotations

from typing import NamedTuple

from model_state import Bounds, Rules, violation
from model_steps import Model

__all__ = ["Bounds", "Exploration", "Rules", "explore"]


class Exploration(NamedTuple):
    """What the search has found.

    Attributes:
        states: how many states there are.
        violation: the property that fails; "" if none does.
        trace: the steps to the state in which it fails.
    """

    states: int
    violation: str
    trace: list[str]


def explore(rules: Rules, bounds: Bounds) -> Exploration:
    """Search all states, until a property fails."""
    model = Model(rules, bounds)
    first = model.first()
    indexes = {first: 0}
    states = [first]
    #: How each state was reached first; and from where each is reached without a fault.
    origins: list[tuple[int, str]] = [(-1, "")]
    before: list[list[int]] = [[]]
    for at, state in enumerate(states):  # which grows meanwhile
        for name, following, is_fault in model.steps(state):
            index = indexes.get(following)
            if index is None:
                index = indexes[following] = len(states)
                states.append(following)
                origins.append((at, name))
                before.append([])
                if wrong := violation(following):
                    return Exploration(len(states), wrong, _trace(origins, index))
            if not is_fault:
                before[index].append(at)
    pending = [index for index, state in enumerate(states) if model.is_finished(state)]
    finishing = set(pending)
    while pending:
        for index in before[pending.pop()]:
            if index not in finishing:
                finishing.add(index)
                pending.append(index)
    for index in range(len(states)):
        if index not in finishing:
            return Exploration(len(states), "no progress", _trace(origins, index))
    return Exploration(len(states), "", [])


def _trace(origins: list[tuple[int, str]], index: int) -> list[str]:
    names: list[str] = []
    while index:
        index, name = origins[index]
        names.append(name)
    return names[::-1]
