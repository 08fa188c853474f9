"""One PySyncObj server with clients in its own process, as its users have them: `OWN_ADDRESS OTHER_ADDRESS...`.

Runs in an environment of its own, with nothing of ours.  Shipped defaults, so nothing is fsynced.  Takes
`put CLIENTS SECONDS`, `first` and `leader` on standard input, and answers each by a line.
"""

import json
import sys
import threading
import time

from pysyncobj import FAIL_REASON, SyncObj, replicated

KEYS = 1_000
VALUE = "x" * 256


class Store(SyncObj):
    """A dictionary."""

    def __init__(self, own, others):
        super().__init__(own, others)
        self._values = {}

    @replicated
    def put(self, key, value):
        self._values[key] = value


class Client:
    """Puts again as soon as it is answered, until the time is over."""

    def __init__(self, store, number, until):
        self.latencies = []
        self.ended = threading.Event()
        self._store = store
        self._number = number
        self._until = until
        self._puts = 0
        self._put()

    def _put(self):
        self._asked = time.monotonic()
        self._puts += 1
        self._store.put(f"k/{self._number}/{self._puts % KEYS}", VALUE, callback=self._answered)

    def _answered(self, _result, error):
        now = time.monotonic()
        if error == FAIL_REASON.SUCCESS:
            self.latencies.append(now - self._asked)
        if now < self._until:
            self._put()
        else:
            self.ended.set()


def load(store, clients, seconds):
    began = time.monotonic()
    running = [Client(store, number, began + seconds) for number in range(clients)]
    for client in running:
        client.ended.wait(10)
    elapsed = time.monotonic() - began
    found = sorted(latency for client in running for latency in client.latencies)
    count = len(found)
    return {"rate": count / elapsed, "p50": found[count // 2], "p99": found[count * 99 // 100], "errors": 0}


def first(store):
    acknowledged = threading.Event()

    def answered(_result, error):
        if error == FAIL_REASON.SUCCESS:
            acknowledged.set()

    while not acknowledged.wait(0.05):
        store.put("first", VALUE, callback=answered)
    return "acknowledged"


def main():
    own, *others = sys.argv[1:]
    store = Store(own, others)
    while not store.isReady():
        time.sleep(0.05)
    print("ready", flush=True)
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "put":
            print(json.dumps(load(store, int(arguments[0]), float(arguments[1]))), flush=True)
        elif verb == "first":
            print(first(store), flush=True)
        else:
            print(json.dumps(str(store._getLeader()) == own), flush=True)


if __name__ == "__main__":
    main()
