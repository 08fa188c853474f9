"""Two bare nodes that talk over a perfect wire, without the simulator: enough to see that the core needs no world."""

from hashlib import blake2b

import msgspec

from dislocate.core.boundary.effects import Notify, SendDatagram, Store
from dislocate.core.boundary.inputs import ClockRead, DatagramReceived, Input, Requested, Stored, TimeReached
from dislocate.core.boundary.requests import Register
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import InstanceSpec
from dislocate.core.identity import NodeId
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND

FIRST = "127.0.1.1:49701"


def two_nodes(seed: str, turns: int) -> str:
    """The digest (hex, 32 characters) of everything that two nodes do in `turns` turns of time."""
    digest = blake2b(digest_size=16)
    nodes = {}
    for index in (1, 2):
        gossip = f"127.0.1.{index}:49701"
        settings = Settings(
            node=NodeId("fra", f"a{index}", index),
            nonce=index,
            gossip=gossip,
            links=f"127.0.1.{index}:49702",
            seeds=(FIRST,),
        )
        nodes[gossip] = Node(settings, Streams(f"{seed}/{index}"), Recovered())
    waiting: list[tuple[str, Input]] = []
    now = 0

    def carry_out(address: str, effects) -> None:
        digest.update(msgspec.msgpack.encode((address, now, effects)))
        for effect in effects:
            if isinstance(effect, SendDatagram) and effect.address in nodes:
                waiting.append((effect.address, DatagramReceived(address, effect.data)))
            elif isinstance(effect, Store):
                waiting.append((address, Stored(effect.seq)))
            elif isinstance(effect, Notify):
                digest.update(repr(effect.event).encode())

    for address, node in nodes.items():
        carry_out(address, node.start(now))
        waiting.append((address, ClockRead(1_790_000_000 * SECOND)))
    waiting.append((FIRST, Requested(1, Register(InstanceSpec(id="web-1", service="shop.web", port=8080)))))
    for _ in range(turns):
        while waiting:
            address, input_ = waiting.pop(0)
            carry_out(address, nodes[address].handle(input_, now))
        address = min(nodes, key=lambda each: nodes[each].deadline())
        now = max(now, nodes[address].deadline())
        waiting.append((address, TimeReached()))
    return digest.hexdigest()
