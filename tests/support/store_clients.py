"""Clients of the store for live tests: each asks one agent after another, one thing at a time, and writes down what it saw.

What was asked and not answered stays uncertain for ever.  Values are unique, so that what is read tells who wrote it.
"""

import base64
import threading
from random import Random
from typing import Any

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from sim.history import History, Outcome, Seen, cas, get, put

TIMEOUT = 12.0  # seconds: an agent gives up after ten

NOT_DONE = (409, 503)  # statuses that say that nothing was done


class StoreClients:
    """`count` threads that write and read `keys` through the agents at `sockets`, until `stop`."""

    def __init__(self, sockets: list[str], keys: list[str], count: int, seed: int) -> None:
        self.history = History()
        self.acknowledged = 0
        self._sockets = sockets
        self._keys = keys
        self._seed = seed
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(count)]

    def __enter__(self) -> "StoreClients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"

    def _run(self, at: int) -> None:
        random = Random(f"{self._seed}/{at}")
        last: dict[str, bytes | None] = {}
        number = 0
        while not self._stopping.is_set():
            number += 1
            agent = AgentConnection(f"unix:{random.choice(self._sockets)}", timeout=TIMEOUT)
            key, value = random.choice(self._keys), b"%d-%d" % (at, number)
            kind = random.choice(("put", "put", "get", "cas"))
            action = {"put": put(key, value), "get": get(key), "cas": cas(key, last.get(key), value)}[kind]
            with self._lock:
                invoked = self.history.invoke(f"c{at}", action)
            outcome, seen = self._ask(agent, kind, key, value, last)
            with self._lock:
                self.history.complete(invoked, outcome, seen)
                self.acknowledged += outcome is Outcome.OK and kind != "get"
            if outcome is not Outcome.OK:
                self._stopping.wait(0.05)

    def _ask(
        self, agent: AgentConnection, kind: str, key: str, value: bytes, last: dict[str, bytes | None]
    ) -> tuple[Outcome, Seen | None]:
        try:
            if kind == "put":
                answer = agent.raw("PUT", f"/api/kv/{key}", value)
                last[key] = value
                return Outcome.OK, Seen()
            if kind == "get":
                last[key] = found = _value(agent, key)
                return Outcome.OK, Seen(values=(found,))
            expected = last.get(key)
            answer = agent.send("POST", "/api/txn", _compare_and_set(key, expected, value))
            if answer["succeeded"]:
                last[key] = value
            return Outcome.OK, Seen(succeeded=answer["succeeded"])
        except Problem as problem:
            is_done = kind != "get" and problem.status not in NOT_DONE
            return (Outcome.UNCERTAIN if is_done else Outcome.FAILED), None
        except NoAgent as error:
            was_sent = kind != "get" and not isinstance(error.reason, ConnectionRefusedError | FileNotFoundError)
            return (Outcome.UNCERTAIN if was_sent else Outcome.FAILED), None


def _value(agent: AgentConnection, key: str) -> bytes | None:
    try:
        answer = agent.get(f"/api/kv/{key}")
    except Problem as problem:
        if problem.status == 404:
            return None
        raise
    text: str = answer["value"]
    return base64.b64decode(text) if answer.get("encoding") else text.encode()


def _compare_and_set(key: str, expected: bytes | None, value: bytes) -> dict[str, Any]:
    if expected is None:
        condition = {"key": key, "field": "version", "is": "=", "number": 0}
    else:
        condition = {"key": key, "field": "value", "is": "=", "value": expected.decode()}
    return {"if": [condition], "then": [{"put": {"key": key, "value": value.decode()}}]}
