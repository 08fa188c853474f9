"""A closed loop of clients of our agents, in one process: `put|get CLIENTS SECONDS unix|http PLACE...`.

A place is the path of an agent.sock, or host:port.  Each client has a socket to each agent and asks them in turn, as etcd's
own client does with its endpoints; it asks again as soon as it is answered.  Plain sockets and one epoll, so that it costs
little beside what it measures.  Says one line of JSON.
"""

import json
import re
import select
import socket
import sys
import tempfile
from time import monotonic

KEYS = 1_000
VALUE = "x" * 256
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
BUFFER = 1 << 16


class UnixFace:
    """Datagrams: one question, one answer."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._made = 0

    def connect(self, place: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._made += 1
        made.bind(f"{self._directory}/{self._made}")
        made.connect(place)
        return made

    def question(self, verb: str, key: str) -> bytes:
        value = f',"value":"{VALUE}"' if verb == "put" else ""
        return f'{{"op":"{verb}","key":"{key}"{value}}}'.encode()

    def answer(self, data: bytes) -> bool | None:
        """Whether it was done; None when more is to come."""
        return data.startswith(b'{"ok":true')


class HttpFace:
    """HTTP/1.1 on a connection that stays."""

    def connect(self, place: str) -> socket.socket:
        host, _, port = place.rpartition(":")
        made = socket.create_connection((host, int(port)))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def question(self, verb: str, key: str) -> bytes:
        if verb == "get":
            return f"GET /api/kv/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        head = f"PUT /api/kv/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(VALUE)}\r\n\r\n"
        return (head + VALUE).encode()

    def answer(self, data: bytes) -> bool | None:
        head, gap, body = data.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not gap or length is None or len(body) < int(length[1]):
            return None
        return head.startswith(b"HTTP/1.1 200")


class Client:
    """Asks one agent after the other."""

    def __init__(self, face: UnixFace | HttpFace, verb: str, number: int, places: list[str]) -> None:
        self.sockets = [face.connect(place) for place in places]
        self._face = face
        self._verb = verb
        self._number = number
        self._asked = number  # so that not all begin with the same agent
        self._data = b""
        self.at = 0.0

    def ask(self) -> None:
        self._asked += 1
        key = "warm" if self._verb == "get" else f"k/{self._number}/{self._asked % KEYS}"
        question = self._face.question(self._verb, key)
        self.at = monotonic()
        self.sockets[self._asked % len(self.sockets)].send(question)

    def hear(self) -> bool | None:
        self._data += self.sockets[self._asked % len(self.sockets)].recv(BUFFER)
        is_done = self._face.answer(self._data)
        if is_done is not None:
            self._data = b""
        return is_done


def run(face: UnixFace | HttpFace, verb: str, count: int, seconds: float, places: list[str]) -> dict[str, float]:
    warm = Client(face, "put", 0, places)
    warm.sockets[0].send(face.question("put", "warm"))
    warm.sockets[0].recv(BUFFER)
    clients = [Client(face, verb, number, places) for number in range(count)]
    poll = select.epoll()
    by_descriptor = {}
    for client in clients:
        for one in client.sockets:
            by_descriptor[one.fileno()] = client
            poll.register(one, select.EPOLLIN)
    latencies, errors, waiting = [], 0, count
    began = monotonic()
    for client in clients:
        client.ask()
    while waiting and monotonic() < began + seconds + 10:
        for descriptor, _ in poll.poll(1.0):
            client = by_descriptor[descriptor]
            is_done = client.hear()
            if is_done is None:
                continue
            now = monotonic()
            if is_done:
                latencies.append(now - client.at)
            else:
                errors += 1
            if now < began + seconds:
                client.ask()
            else:
                waiting -= 1
    elapsed = monotonic() - began
    latencies.sort()
    last = len(latencies) - 1
    return {
        "rate": len(latencies) / elapsed,
        "p50": latencies[last // 2] if latencies else float("inf"),
        "p99": latencies[last * 99 // 100] if latencies else float("inf"),
        "errors": errors + waiting,
    }


def main() -> None:
    verb, count, seconds, face, *places = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        chosen = UnixFace(directory) if face == "unix" else HttpFace()
        print(json.dumps(run(chosen, verb, int(count), float(seconds), places)), flush=True)


if __name__ == "__main__":
    main()
