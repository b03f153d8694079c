"""The steps of the model of user ids, from any of its states.

`model_checker` describes the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from model_state import (
    ARMED,
    BROKEN,
    NO_NUMBERS,
    NONE,
    Bounds,
    Client,
    Command,
    Data,
    Late,
    Rules,
    State,
    break_watches,
    canonical,
    less,
    with_client,
    with_data,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A stamp that nobody holds.
_FRESH: Final = 99

#: A reply to a write that a replica refuses.
_REFUSED: Final = "READONLY"

#: The clients.
_NAMES: Final = ("X", "Y")

#: Commands without an effect on the data.
_READS: Final = frozenset({"watch", "get"})


class Step(NamedTuple):
    """A step from a state to another one."""

    name: str
    state: State
    is_fault: bool = False


class Model:
    """The steps from a state, with some rules and bounds."""

    def __init__(self, rules: Rules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        first = len(bounds.menus)
        self._promotions, self._breaks, self._late, self._crashes, self._flushes = range(
            first, first + 5
        )

    def first(self) -> State:
        """Return the state to begin with."""
        bounds = self.bounds
        left = (
            *bounds.operations,
            bounds.promotions,
            bounds.breaks,
            bounds.late,
            bounds.crashes,
            bounds.flushes,
        )
        clients = (Client(),) * len(bounds.menus)
        return State((Data(), Data()), 0, False, clients, Late(), left)

    def is_finished(self, state: State) -> bool:
        """Return whether no operation is unfinished and the journal is empty."""
        return not any(state.data[state.master].journal) and not any(
            client.work for client in state.clients
        )

    def steps(self, state: State) -> Iterator[Step]:
        """Yield each step from a state."""
        for step in (*self._server_steps(state), *self._client_steps(state)):
            yield step._replace(state=canonical(step.state))

    # --- servers

    def _server_steps(self, state: State) -> Iterator[Step]:
        data, master, left = state.data, state.master, state.left
        old = 1 - master
        copied = (data[master],) * 2
        if state.split:
            writing = any(client.queue and client.server == old for client in state.clients)
            if not (self.rules.whole_writes and writing):
                demoted = break_watches(state._replace(data=copied, split=False), old)
                yield Step("demote", demoted)
        elif left[self._promotions]:
            if data[0] != data[1]:
                yield Step("replicate", state._replace(data=copied))
            promoted = state._replace(master=old, split=True, left=less(left, self._promotions))
            yield Step("promote", promoted, is_fault=True)
        if left[self._flushes]:
            flushed = with_data(state, master, Data())
            flushed = flushed._replace(left=less(left, self._flushes))
            yield Step("flush", break_watches(flushed, master), is_fault=True)
        if state.late.queue:
            late = state.late
            command, *queue = late.queue
            after, _, watch = self._execute(state, late.server, late.watch, command)
            late = Late(late.server, watch, tuple(queue)) if queue else Late()
            yield Step(f"late {command}", after._replace(late=late))

    # --- commands

    def _execute(
        self, state: State, server: int, watch: int, command: Command
    ) -> tuple[State, tuple[Any, ...], int]:
        """Execute a command on a server.

        Returns:
            the state; the reply; the ``WATCH`` of the connection, unless all are broken.
        """
        data = state.data[server]
        name, *arguments = command
        if name == "watch":
            return state, (name,), ARMED if watch == NONE else watch
        if name == "get":
            return state, (name, data.stamp, data.next), watch
        refuses = server != state.master and not state.split
        after, result = (data, _REFUSED) if refuses else (data, None)
        if name == "exec":
            if not refuses and not (self.rules.watch and watch == BROKEN):
                after, result = _write(data, arguments[0]), "OK"
            watch = NONE
        elif not refuses:
            after, result = getattr(self, f"_{name}")(data, *arguments)
        reply = (name, *result) if isinstance(result, tuple) else (name, result)
        state = with_data(state, server, after)
        if after.stamp != data.stamp:
            # Which breaks the connection's own WATCH too.
            state = break_watches(state, server)
            watch = BROKEN if watch == ARMED else watch
        return state, reply, watch

    def _script(self, data: Data, marks: tuple[tuple[int, int], ...]) -> tuple[Data, Any]:
        """Execute the script: look up or allocate numbers, and write the bits."""
        numbers = list(data.numbers)
        following, stamp = data.next, data.stamp
        for value, user in marks:
            if value and numbers[user] is None:
                stamp = stamp or _FRESH
                numbers[user] = following
                if self.rules.reuses_numbers:
                    numbers[user] = next(n for n in range(_FRESH) if n not in data.numbers)
                following = max(following, numbers[user] + 1)  # type: ignore[operator]
        data = data._replace(numbers=tuple(numbers), next=following, stamp=stamp)
        writes = [(value, user, numbers[user]) for value, user in marks]
        learned = tuple((user, numbers[user]) for _, user in marks)
        return _write(data, writes), (stamp, learned)

    def _erase(self, data: Data, user: int) -> tuple[Data, Any]:
        """Erase an id, and return the numbers in the journal."""
        number = data.numbers[user] if user >= 0 else None
        journal = data.journal
        if number is not None:
            numbers = list(data.numbers)
            numbers[user] = None
            if self.rules.has_journal:
                journal = _put(journal, number, _FRESH)
            data = data._replace(
                numbers=tuple(numbers),
                stamp=_FRESH + 1 if self.rules.renews_stamp else data.stamp,
                journal=journal,
                marked=data.marked & ~(1 << user),
            )
        entries = [each for each, token in enumerate(journal) if token or each == number]
        return data, tuple(entries)

    def _clear(self, data: Data, number: int) -> tuple[Data, Any]:
        """Clear the bit of a number that is being forgotten; return the number's token."""
        token = data.journal[number]
        if not token and self.rules.clears_by_journal and self.rules.has_journal:
            return data, (0,)
        bits = data.bits & ~(1 << number)
        if bits != data.bits and token and self.rules.renews_tokens:
            token = _FRESH
        return data._replace(bits=bits, journal=_put(data.journal, number, token)), (token,)

    def _end(self, data: Data, number: int, token: int) -> tuple[Data, Any]:
        """Remove a number from the journal, if it has this token; return whether it is gone."""
        if self.rules.compares_tokens and data.journal[number] not in {0, token}:
            return data, (False,)
        return data._replace(journal=_put(data.journal, number, 0)), (True,)

    # --- clients

    def _client_steps(self, state: State) -> Iterator[Step]:
        for index, client in enumerate(state.clients):
            if client.queue:
                yield from self._continue(state, index)
            elif client.work:
                yield from self._begin(state, index)
            else:
                if state.left[index]:
                    left = less(state.left, index)
                    for operation in self.bounds.menus[index]:
                        begun = client._replace(work=_work(operation))
                        begun_state = with_client(state, index, begun)._replace(left=left)
                        yield from self._begin(begun_state, index, operation)
                if any(state.data[state.master].journal):
                    sweeping = client._replace(work=("forget", -1))
                    yield from self._begin(with_client(state, index, sweeping), index, "sweep")
            yield from self._faults(state, index)

    def _begin(self, state: State, index: int, operation: str = "") -> Iterator[Step]:
        """Connect if need be, and send the next write of the unfinished operation."""
        client = state.clients[index]
        if client.server < 0:
            client = client._replace(server=state.master)
            if client.cache != NO_NUMBERS:  # kept against the rule: look at the stamp first
                client = client._replace(queue=(("watch",), ("get",)), replies=())
                yield from self._continue(with_client(state, index, client), index, operation)
                return
        queue = client.again or self._write_of(client)
        client = client._replace(queue=queue, replies=(), again=())
        state = with_client(state, index, client)
        yield from self._continue(state, index, operation)
        if state.left[self._late]:  # the connection breaks before the server has read the write
            yield self._broken_late(state, index)

    def _write_of(self, client: Client) -> tuple[Command, ...]:
        """Return the commands of the next write of the unfinished operation."""
        if client.work[0] == "forget":
            _, user, *commands = client.work
            return (commands[0],) if commands else (("erase", user),)
        cache = client.cache
        known = tuple((v, user, cache[user]) for v, user in client.work if cache[user] is not None)
        unknown = tuple((value, user) for value, user in client.work if cache[user] is None)
        transaction = [("exec", known)] if known else []
        script = [("script", unknown)] if unknown else []
        watch: list[Command] = [("watch",), ("get",)]
        if not self.rules.gets_behind_watch:
            watch.reverse()
        return (*transaction, *script, *watch)

    def _continue(self, state: State, index: int, operation: str = "") -> Iterator[Step]:
        """Execute the next command of a client; receive the replies behind the last one."""
        client = state.clients[index]
        command, *queue = client.queue
        state, reply, watch = self._execute(state, client.server, client.watch, command)
        client = state.clients[index]._replace(
            queue=tuple(queue), replies=(*client.replies, reply), watch=watch
        )
        name = f"{_NAMES[index]} {operation}: {command}"
        if queue:
            yield Step(name, with_client(state, index, client))
            return
        yield Step(f"{name}, receives", with_client(state, index, self._received(client)))
        if state.left[self._breaks]:
            left = less(state.left, self._breaks)
            lost = with_client(state, index, self._disconnected(client))._replace(left=left)
            yield Step(f"{name}, reply lost", lost, is_fault=True)

    def _received(self, client: Client) -> Client:
        """Return a client that has received the replies to its write."""
        replies = {name: reply for name, *reply in client.replies}
        if any(reply == [_REFUSED] for reply in replies.values()):
            if self.rules.drops_after_refusal:
                return self._disconnected(client)
            unfinished = client.work
        else:
            unfinished = ()
        client = client._replace(replies=())
        if client.work[0] == "forget":
            if unfinished:
                return client
            if "get" in replies:  # the check of a kept cache
                return self._checked(client, *replies["get"])
            return client._replace(work=_after(client.work, replies))
        stamp, counter = replies["get"]
        if len(replies) == 2:
            return self._checked(client, stamp, counter)
        aborted = replies.get("exec") == [None]
        if aborted:
            cache = client.cache
            unfinished = tuple(mark for mark in client.work if cache[mark[1]] is not None)
        if stamp != client.stamp or (aborted and self.rules.drops_after_abort):
            client = client._replace(cache=NO_NUMBERS, stamp=stamp)
        if "script" in replies and replies["script"] != [_REFUSED]:
            seen, learned = replies["script"]
            if seen == stamp or not self.rules.compares_stamps:
                numbers = list(client.cache)
                for user, number in learned:
                    numbers[user] = number
                client = client._replace(cache=tuple(numbers))
        return client._replace(work=unfinished)

    def _checked(self, client: Client, stamp: int, counter: int) -> Client:
        """Return a client that has looked at the stamp after a reconnect."""
        keeps = stamp == client.stamp
        if self.rules.keeps_cache == "counter":
            keeps = keeps and all(n is None or n < counter for n in client.cache)
        cache = client.cache if keeps else NO_NUMBERS
        return client._replace(cache=cache, stamp=stamp)

    # --- faults of clients

    def _disconnected(self, client: Client) -> Client:
        """Return a client whose connection is broken."""
        again: tuple[Command, ...] = ()
        if not self.rules.resolves_again and client.work and client.work[0] != "forget":
            again = self._write_of(client)
        kept = Client(work=client.work, again=again)
        if self.rules.keeps_cache:
            kept = kept._replace(cache=client.cache, stamp=client.stamp)
        return kept

    def _faults(self, state: State, index: int) -> Iterator[Step]:
        client = state.clients[index]
        if client.server < 0:
            return
        if state.left[self._breaks]:
            left = less(state.left, self._breaks)
            broken = with_client(state, index, self._disconnected(client))._replace(left=left)
            yield Step(f"{_NAMES[index]} breaks", broken, is_fault=True)
        if state.left[self._late] and any(command[0] not in _READS for command in client.queue):
            yield self._broken_late(state, index)
        if state.left[self._crashes] and client.work:
            left = less(state.left, self._crashes)
            crashed = with_client(state, index, Client())._replace(left=left)
            yield Step(f"{_NAMES[index]} crashes", crashed, is_fault=True)

    def _broken_late(self, state: State, index: int) -> Step:
        """Return the step to a broken connection whose commands are executed later."""
        client = state.clients[index]
        queue = tuple(command for command in client.queue if command[0] not in _READS)
        broken = with_client(state, index, self._disconnected(client))._replace(
            late=Late(client.server, client.watch, queue), left=less(state.left, self._late)
        )
        return Step(f"{_NAMES[index]} breaks, later: {queue}", broken, is_fault=True)


def _work(operation: str) -> tuple[Any, ...]:
    """Return the unfinished work at the beginning of an operation."""
    if operation.startswith("forget"):
        return ("forget", int(operation[-1]))
    pairs = zip(operation[::2], operation[1::2], strict=True)
    return tuple((int(sign == "+"), int(user)) for sign, user in pairs)


def _after(work: tuple[Any, ...], replies: dict[str, Any]) -> tuple[Any, ...]:
    """Return what remains of a forget behind its last command."""
    _, user, *commands = work
    if "erase" in replies:
        commands = [("clear", number) for number in replies["erase"]]
    elif "clear" in replies:
        (_, number), *others = commands
        (token,) = replies["clear"]
        commands = [("end", number, token), *others] if token else others
    else:
        (_, number, _), *others = commands
        (is_gone,) = replies["end"]
        commands = others if is_gone else [("clear", number), *others]
    return ("forget", user, *commands) if commands else ()


def _put(journal: tuple[int, ...], number: int, token: int) -> tuple[int, ...]:
    return (*journal[:number], token, *journal[number + 1 :])


def _write(data: Data, writes: Any) -> Data:
    """Write bits: values, ids and numbers."""
    bits, marked = data.bits, data.marked
    for value, user, number in writes:
        if value:
            bits |= 1 << number
            marked |= 1 << user
        else:
            bits &= ~(0 if number is None else 1 << number)
            marked &= ~(1 << user)
    return data._replace(bits=bits, marked=marked)
