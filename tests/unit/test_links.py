"""Links on real loopback sockets.  Tests that kill a process do it with SIGKILL, as the kernel would see it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from random import Random
from time import monotonic
from types import SimpleNamespace
from typing import TypeVar

import gevent
import gevent.socket
import pytest
import zmq
import zmq.green
from zmq.utils import z85

from dislocate.core.boundary.inputs import Input, LinkLost, LinkOpened, MessageReceived, SendFailed
from dislocate.core.boundary.values import Refusal
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.io.links import Links
from dislocate.io.links.frames import LINK_PROTOCOL, Hello, encode_control
from dislocate.io.links.sockets import BURST_MESSAGES, SEND_QUEUE, messages, new_context, new_dialler
from tests.support.addresses import free_address

I = TypeVar("I")  # noqa: E741  the kind of input


def new_keys() -> SimpleNamespace:
    public, secret = zmq.curve_keypair()
    return SimpleNamespace(public=z85.decode(public), secret=z85.decode(secret))


def wait_until(claim: Callable[[], object], within: float = 60.0) -> None:
    deadline = monotonic() + within
    while not claim():
        assert monotonic() < deadline, "it did not come true in time"
        gevent.sleep(0.001)


class Agent:
    """One end: its links, and the inputs that they caused."""

    def __init__(
        self, name: str, directory: dict[bytes, str], shaping: object = None, boot: int = 1, keys=None
    ) -> None:
        self.node = NodeId("fra", name, boot)
        self.keys = keys or new_keys()
        self.address = free_address()
        self.inputs: list[Input] = []
        self.taken = 0
        directory[self.keys.public] = self.node.path
        self.links = Links(
            node=self.node,
            bind=self.address,
            keys=self.keys,
            known_key=directory.get,
            deliver=self.inputs.append,
            shaping=shaping,
        )

    def dial(self, other: "Agent") -> None:
        self.links.open(other.node, other.address, other.keys.public)

    def expect(self, kind: type[I]) -> I:
        """The next input of `kind`; whatever came before it is passed over."""
        wait_until(lambda: any(type(input_) is kind for input_ in self.inputs[self.taken :]))
        while True:
            self.taken += 1
            if type(found := self.inputs[self.taken - 1]) is kind:
                return found

    def all(self, kind: type[I]) -> list[I]:
        return [input_ for input_ in self.inputs if type(input_) is kind]


@pytest.fixture
def directory() -> dict[bytes, str]:
    """Which key belongs to whom, as alive records would say."""
    return {}


@pytest.fixture
def agent(directory) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def start(name: str, **options: object) -> Agent:
        agents.append(Agent(name, directory, **options))
        return agents[-1]

    yield start
    for each in agents:
        each.links.stop()


@pytest.fixture
def pair(agent) -> tuple[Agent, Agent]:
    """Two agents with an open link that the first dialled."""
    one, two = agent("a1"), agent("a2")
    one.dial(two)
    assert one.expect(LinkOpened) == LinkOpened(two.node)
    assert two.expect(LinkOpened) == LinkOpened(one.node)
    return one, two


# ---- opening


def test_a_link_opens_on_both_sides_and_carries_messages_both_ways(pair):
    one, two = pair
    one.links.send(two.node, b"ping")
    assert two.expect(MessageReceived) == MessageReceived(one.node, b"ping")
    two.links.send(one.node, b"pong")
    assert one.expect(MessageReceived) == MessageReceived(two.node, b"pong")


def test_opening_an_open_link_again_is_answered_by_nothing(pair):
    one, two = pair
    one.dial(two)
    two.dial(one)
    one.links.send(two.node, b"after")
    two.expect(MessageReceived)
    assert one.links.counters["dials"] == 1
    assert two.links.counters["dials"] == 0
    assert len(one.all(LinkOpened)) == len(two.all(LinkOpened)) == 1


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.008])
def test_two_agents_that_dial_at_once_get_one_link(agent, delay):
    one, two = agent("a1"), agent("a2")
    one.dial(two)
    gevent.sleep(delay)
    two.dial(one)
    one.expect(LinkOpened)
    two.expect(LinkOpened)
    for sender, receiver in ((one, two), (two, one)):
        for number in range(20):
            sender.links.send(receiver.node, b"%d" % number)
        assert [receiver.expect(MessageReceived).data for _ in range(20)] == [b"%d" % number for number in range(20)]
    assert len(one.all(LinkOpened)) == len(two.all(LinkOpened)) == 1
    assert one.all(LinkLost) == two.all(LinkLost) == []


def test_a_dial_that_fails_lets_the_peers_own_dial_become_the_link(agent):
    """A firewall passes one direction only: the lesser dials into nothing, and would have won."""
    one, two = agent("a1"), agent("a2")
    with gevent.socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()  # accepts by the kernel, never says a word
        one.links.open(two.node, f"127.0.0.1:{mute.getsockname()[1]}", two.keys.public)
        two.dial(one)
        wait_until(lambda: one.links._waiting)
        assert one.all(LinkOpened) == []
    del mute
    assert one.expect(LinkOpened) == LinkOpened(two.node)
    assert two.expect(LinkOpened) == LinkOpened(one.node)
    assert one.all(LinkLost) == two.all(LinkLost) == []


def test_an_address_where_nobody_listens_is_reported_as_refused(agent):
    one = agent("a1")
    nobody = NodeId("fra", "a2", 1)
    one.links.open(nobody, free_address(), new_keys().public)
    assert one.expect(LinkLost) == LinkLost(nobody, "refused")


def test_a_host_that_accepts_and_says_nothing_is_given_up(agent, monkeypatch):
    monkeypatch.setattr("dislocate.io.links.dialled.DIAL_TIMEOUT", 0.2)
    one = agent("a1")
    with gevent.socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        one.links.open(NodeId("fra", "a2", 1), f"127.0.0.1:{mute.getsockname()[1]}", new_keys().public)
        assert one.expect(LinkLost).reason == "timed out"


def test_an_address_that_cannot_be_one_is_answered(agent):
    one = agent("a1")
    one.links.open(NodeId("fra", "a2", 1), "nonsense", new_keys().public)
    assert one.expect(LinkLost).reason.startswith("cannot dial")


def test_an_address_in_use_is_an_error_that_names_the_setting(agent):
    one = agent("a1")
    with pytest.raises(LocalError, match=r"ports\.links"):
        Links(node=one.node, bind=one.address, keys=one.keys, known_key={}.get, deliver=print)


# ---- trust


def test_a_key_that_no_alive_record_names_is_not_let_in(agent, directory):
    one, two = agent("a1"), agent("a2")
    del directory[one.keys.public]
    one.dial(two)
    assert one.expect(LinkLost) == LinkLost(two.node, "not authenticated")
    assert two.links.counters["keys_refused"] == 1
    assert two.inputs == []


def test_a_link_opens_only_to_the_holder_of_the_expected_key(agent):
    one, two = agent("a1"), agent("a2")
    one.links.open(two.node, two.address, new_keys().public)
    assert one.expect(LinkLost).reason.startswith("handshake failed")
    assert two.inputs == []


def test_a_host_cannot_speak_for_another(agent):
    victim, target, thief = agent("a1"), agent("a2"), agent("a3")
    victim.dial(target)
    target.expect(LinkOpened)
    context = new_context()
    claims = (
        (victim.node, victim.node),  # another's name everywhere
        (thief.node, victim.node),  # its own name to the ROUTER, another's in the hello
    )
    for routed_as, greets_as in claims:
        before = target.links.counters["impostors"]
        raw = new_dialler(context, routed_as, target.address, thief.keys, target.keys.public)
        raw.connect(f"tcp://{target.address}")
        raw.send_multipart(encode_control(Hello(LINK_PROTOCOL, greets_as, target.node, 99)))
        wait_until(lambda: target.links.counters["impostors"] > before)  # noqa: B023  called before the next round
        raw.close()
    context.destroy(0)
    target.links.send(victim.node, b"for the victim only")
    assert victim.expect(MessageReceived).data == b"for the victim only"
    assert target.all(LinkLost) == []


def test_who_speaks_before_hello_is_counted_and_dropped(agent):
    target, stranger = agent("a1"), agent("a2")
    context = new_context()
    raw = new_dialler(context, stranger.node, target.address, stranger.keys, target.keys.public)
    raw.connect(f"tcp://{target.address}")
    raw.send_multipart([b"no hello first"])
    raw.send_multipart([b"\x01", b"junk"])
    raw.send_multipart([b"three", b"parts", b"here"])
    wait_until(lambda: target.links.counters["unreadable"] == 2)
    assert target.links.counters["unlinked_messages"] == 1
    assert target.inputs == []
    raw.close()
    context.destroy(0)


def test_a_dial_to_an_earlier_start_of_a_peer_is_not_answered_by_the_later_one(agent):
    one, two = agent("a1"), agent("a2", boot=2)
    earlier = NodeId("fra", "a2", 1)
    one.links.open(earlier, two.address, two.keys.public)
    lost = one.expect(LinkLost)
    assert lost.peer == earlier
    assert "fra/a2#2" in lost.reason
    assert two.all(LinkOpened) == []


# ---- losing


PEER = """
import sys, gevent
from types import SimpleNamespace
from dislocate.core.boundary.inputs import LinkOpened, MessageReceived
from dislocate.core.identity import NodeId
from dislocate.io.links import Links

mine, bind, public, secret, path, key, dials, boot = sys.argv[1:]
datacenter, name = path.split("/")
def deliver(input_):
    if type(input_) is MessageReceived and input_.data == b"last words?":
        links.send(input_.peer, b"last words")
        return
    print(type(input_).__name__, flush=True)
links = Links(
    node=NodeId("fra", mine, int(boot)), bind=bind,
    keys=SimpleNamespace(public=bytes.fromhex(public), secret=bytes.fromhex(secret)),
    known_key={bytes.fromhex(key): path}.get, deliver=deliver,
)
print("ready", flush=True)
if dials:
    links.open(NodeId(datacenter, name, 1), dials, bytes.fromhex(key))
gevent.sleep(600)
"""


class Process:
    """An agent's links in a process of their own."""

    def __init__(self, name: str, other: Agent, directory: dict[bytes, str], *, dials: bool, boot: int = 1) -> None:
        self.node = NodeId("fra", name, boot)
        self.keys = new_keys()
        self.address = free_address()
        directory[self.keys.public] = self.node.path
        arguments = [
            name,
            self.address,
            self.keys.public.hex(),
            self.keys.secret.hex(),
            other.node.path,
            other.keys.public.hex(),
            other.address if dials else "",
            str(boot),
        ]
        self.process = subprocess.Popen([sys.executable, "-c", PEER, *arguments], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def process(directory) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(name: str, other: Agent, **options: object) -> Process:
        processes.append(Process(name, other, directory, **options))
        return processes[-1]

    yield start
    for each in processes:
        if each.process.returncode is None:
            each.kill()


@pytest.mark.parametrize("it_dials", [False, True])
def test_a_killed_process_is_reported_whichever_side_had_dialled(agent, process, it_dials):
    survivor = agent("a1")
    victim = process("a2", survivor, dials=it_dials)
    if not it_dials:
        survivor.dial(victim)
    survivor.expect(LinkOpened)
    survivor.links.send(victim.node, b"last words?")
    assert survivor.expect(MessageReceived).data == b"last words"
    victim.kill()
    assert survivor.expect(LinkLost) == LinkLost(victim.node, "disconnected")
    survivor.links.send(victim.node, b"too late")
    assert survivor.expect(SendFailed) == SendFailed(victim.node, Refusal.GONE)


def test_each_of_several_killed_dialers_is_reported_once_and_no_other(agent, process):
    survivor = agent("a1")
    victims = [process(f"b{number}", survivor, dials=True) for number in range(3)]
    wait_until(lambda: len(survivor.all(LinkOpened)) == 3)
    victims[0].kill()
    victims[2].kill()
    wait_until(lambda: len(survivor.all(LinkLost)) == 2)
    assert {lost.peer for lost in survivor.all(LinkLost)} == {victims[0].node, victims[2].node}
    survivor.links.send(victims[1].node, b"last words?")
    assert survivor.expect(MessageReceived).peer == victims[1].node


def test_descriptors_that_are_used_again_do_not_confuse_who_was_lost(agent):
    """libzmq names an end by its descriptor, and the kernel gives the lowest free one to the next connection."""
    target, steady = agent("a1"), agent("a2")
    steady.dial(target)
    target.expect(LinkOpened)
    for round_ in range(1, 21):
        visitor = agent("b1", boot=round_)
        visitor.dial(target)
        assert target.expect(LinkOpened) == LinkOpened(visitor.node)
        visitor.expect(LinkOpened)
        visitor.links.send(target.node, b"%d" % round_)
        wait_until(lambda: target.links.counters["messages_received"] == round_)  # noqa: B023  called in this round
        visitor.links.stop()
        assert target.expect(LinkLost) == LinkLost(visitor.node, "disconnected")
    assert len(target.all(LinkLost)) == 20
    steady.expect(LinkOpened)
    steady.links.send(target.node, b"still here")
    assert target.expect(MessageReceived).data == b"still here"


def test_what_was_sent_before_an_end_arrives_before_the_end_is_reported(agent):
    target = agent("a1")
    visitor = agent("a2")
    visitor.dial(target)
    visitor.expect(LinkOpened)
    for number in range(SEND_QUEUE):
        visitor.links.send(target.node, b"%d" % number)
    wait_until(lambda: target.links.counters["messages_received"] > 0)
    visitor.links.stop()
    target.expect(LinkLost)
    assert type(target.inputs[-1]) is LinkLost
    numbers = [int(received.data) for received in target.all(MessageReceived)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("closer", [0, 1])
def test_a_closed_link_is_reported_by_the_other_side_only_and_can_be_opened_again(pair, closer):
    here, there = pair[closer], pair[1 - closer]
    here.links.close(there.node)
    assert there.expect(LinkLost).peer == here.node
    assert here.all(LinkLost) == []
    here.links.send(there.node, b"x")
    assert here.expect(SendFailed) == SendFailed(there.node, Refusal.GONE)
    there.dial(here)
    assert here.expect(LinkOpened) == LinkOpened(there.node)
    there.expect(LinkOpened)
    here.links.send(there.node, b"again")
    assert there.expect(MessageReceived).data == b"again"


def test_close_and_dial_at_once_gives_a_new_link_and_loses_the_old_one(pair):
    one, two = pair
    for _ in range(5):
        one.links.close(two.node)
        one.dial(two)
        two.expect(LinkLost)
        two.expect(LinkOpened)
        one.expect(LinkOpened)
    two.links.send(one.node, b"on the newest")
    assert one.expect(MessageReceived).data == b"on the newest"


@pytest.mark.parametrize("it_dials", [False, True])
def test_a_later_start_of_a_peer_takes_over(agent, it_dials):
    """The earlier start is alive but cut off, or its end was not noticed yet."""
    one, earlier = agent("a1"), agent("a2", boot=1)
    earlier.dial(one)
    one.expect(LinkOpened)
    later = agent("a2", boot=2, keys=earlier.keys)
    if it_dials:
        later.dial(one)
    else:
        one.dial(later)
    assert one.expect(LinkLost).peer == earlier.node
    assert one.expect(LinkOpened) == LinkOpened(later.node)
    one.links.send(earlier.node, b"x")
    assert one.expect(SendFailed) == SendFailed(earlier.node, Refusal.GONE)
    one.links.send(later.node, b"to the later")
    assert later.expect(MessageReceived).data == b"to the later"


def test_an_earlier_start_of_a_linked_peer_is_turned_away(agent):
    one, later = agent("a1"), agent("a2", boot=2)
    later.dial(one)
    one.expect(LinkOpened)
    earlier = agent("a2", boot=1, keys=later.keys)
    earlier.dial(one)
    assert "newer start" in earlier.expect(LinkLost).reason
    one.links.open(earlier.node, earlier.address, earlier.keys.public)
    assert "newer start" in one.expect(LinkLost).reason
    assert len(one.all(LinkOpened)) == 1


@pytest.mark.parametrize("it_dials", [False, True])
def test_a_peer_that_falls_silent_is_lost_by_the_heartbeats(agent, process, monkeypatch, it_dials):
    """A stopped process stands for a host without power: TCP says nothing of either."""
    monkeypatch.setattr("dislocate.io.links.sockets.HEARTBEAT_PERIOD", 0.2)
    monkeypatch.setattr(
        "dislocate.io.links.sockets.HEARTBEAT_TIMEOUT", 2.0
    )  # so long a living peer may be kept waiting
    survivor = agent("a1")
    silent = process("a2", survivor, dials=it_dials)
    if not it_dials:
        survivor.dial(silent)
    survivor.expect(LinkOpened)
    silent.process.send_signal(signal.SIGSTOP)
    assert survivor.expect(LinkLost) == LinkLost(silent.node, "disconnected")


@pytest.mark.parametrize("seed", range(4))
def test_however_links_are_opened_and_closed_both_sides_agree_in_the_end(agent, seed):
    random = Random(seed)
    agents = [agent("a1"), agent("a2"), agent("a3")]
    for _ in range(150):
        one, two = random.sample(agents, 2)
        random.choice([lambda: one.dial(two), lambda: one.links.close(two.node)])()  # noqa: B023  called at once
        gevent.sleep(random.choice([0, 0, 0.001, 0.003]))

    def linked(one: Agent, two: Agent) -> bool:
        return two.node.path in one.links._links

    def settled() -> bool:
        pairs = [(one, two) for one in agents for two in agents if one is not two]
        return not any(one.links._dials for one in agents) and all(linked(a, b) == linked(b, a) for a, b in pairs)

    wait_until(settled)
    for one, two in ((one, two) for one in agents for two in agents if one is not two and linked(one, two)):
        one.links.send(two.node, b"over the last link")
        wait_until(lambda: MessageReceived(one.node, b"over the last link") in two.inputs)  # noqa: B023  waits here
    for one in agents:
        assert one.links.counters["impostors"] == 0


# ---- sending


def test_without_a_link_a_message_is_answered_by_gone(agent):
    one = agent("a1")
    one.links.send(NodeId("fra", "a2", 1), b"x")
    assert one.inputs == [SendFailed(NodeId("fra", "a2", 1), Refusal.GONE)]


def test_messages_up_to_the_budget_pass_and_larger_ones_are_refused(pair):
    one, two = pair
    for sender, receiver in ((one, two), (two, one)):
        sender.links.send(receiver.node, bytes(MESSAGE_BUDGET))
        assert len(receiver.expect(MessageReceived).data) == MESSAGE_BUDGET
        sender.links.send(receiver.node, bytes(MESSAGE_BUDGET + 1))
        assert sender.expect(SendFailed) == SendFailed(receiver.node, Refusal.TOO_LARGE)


@pytest.mark.parametrize("it_dials", [False, True])
def test_a_stopped_peer_pushes_back_and_nothing_before_is_lost(agent, process, it_dials):
    sender = agent("a1")
    receiver = process("a2", sender, dials=it_dials)
    if not it_dials:
        sender.dial(receiver)
    sender.expect(LinkOpened)
    receiver.process.send_signal(signal.SIGSTOP)
    attempts = 0
    while not sender.all(SendFailed):
        sender.links.send(receiver.node, bytes(MESSAGE_BUDGET))
        attempts += 1
        gevent.sleep(0)
    assert sender.all(SendFailed) == [SendFailed(receiver.node, Refusal.BACKPRESSURE)]
    receiver.process.send_signal(signal.SIGCONT)
    assert receiver.process.stdout.readline() == "LinkOpened\n"
    for _ in range(attempts - 1):
        assert receiver.process.stdout.readline() == "MessageReceived\n"
    assert sender.links.counters["messages_sent"] == attempts - 1
    assert sender.all(LinkLost) == []


def test_a_reader_with_a_full_queue_lets_other_greenlets_run():
    """By itself a busy receive loop never does: 900 queued messages were 0 switches."""
    context = new_context()
    sender, receiver = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    receiver.bind("inproc://flood")
    sender.connect("inproc://flood")
    for _ in range(900):
        sender.send_multipart([b"x"], zmq.NOBLOCK)
    turns = read = 0

    def take_turns() -> None:
        nonlocal turns
        while read < 900:
            turns += 1
            gevent.sleep(0)

    other = gevent.spawn(take_turns)
    for _ in messages(receiver):
        read += 1
        if read == 900:
            break
    other.join()
    assert turns >= 900 // BURST_MESSAGES
    context.destroy(0)


# ---- shaping


class Cut:
    """A network that can be cut: what happens meanwhile is kept for the heal, as `io.shaping` does."""

    def __init__(self) -> None:
        self.cut = False
        self.held: list[Callable[[], object]] = []

    def _pass(self, action: Callable[[], object]) -> None:
        if self.cut:
            self.held.append(action)
        else:
            action()

    def send_message(self, peer: NodeId, size: int, send: Callable[[], object]) -> bool:
        self._pass(send)
        return len(self.held) <= 3

    def receive_message(self, peer: NodeId, deliver: Callable[[], object]) -> None:
        self._pass(deliver)

    report_link = receive_message

    def is_cut(self, peer: NodeId) -> bool:
        return self.cut

    def heal(self) -> None:
        self.cut = False
        while self.held:
            self.held.pop(0)()


def test_while_a_link_is_cut_neither_messages_nor_its_end_are_known(agent):
    network = Cut()
    one, two = agent("a1", shaping=network), agent("a2")
    one.dial(two)
    one.expect(LinkOpened)
    network.cut = True
    two.links.send(one.node, b"behind the cut")
    wait_until(lambda: network.held)
    two.links.stop()
    wait_until(lambda: len(network.held) == 2)
    assert one.all(LinkLost) == one.all(MessageReceived) == []
    network.heal()
    assert [type(input_) for input_ in one.inputs] == [LinkOpened, MessageReceived, LinkLost]


@pytest.mark.parametrize("it_dies_meanwhile", [False, True])
def test_a_cut_that_outlasts_the_heartbeats_loses_the_link_and_what_waited_on_it(agent, monkeypatch, it_dies_meanwhile):
    monkeypatch.setattr("dislocate.io.links.news._CUT_CHECK", 0.01)
    monkeypatch.setattr("dislocate.io.links.news.HEARTBEAT_TIMEOUT", 0.05)
    network = Cut()
    one, two = agent("a1", shaping=network), agent("a2")
    one.dial(two)
    one.expect(LinkOpened)
    two.expect(LinkOpened)
    network.cut = True
    two.links.send(one.node, b"behind the cut")
    if it_dies_meanwhile:
        two.links.stop()
    assert one.expect(LinkLost) == LinkLost(two.node, "no heartbeat")
    network.heal()
    one.links.send(two.node, b"x")
    assert one.expect(SendFailed).reason == Refusal.GONE
    assert [type(input_) for input_ in one.inputs] == [LinkOpened, LinkLost, SendFailed]


def test_a_dial_over_a_cut_times_out(agent, monkeypatch):
    monkeypatch.setattr("dislocate.io.links.dialled.DIAL_TIMEOUT", 0.2)
    network = Cut()
    network.cut = True
    one, two = agent("a1", shaping=network), agent("a2")
    one.dial(two)
    assert one.expect(LinkLost) == LinkLost(two.node, "timed out")
    assert two.inputs == []


def test_too_much_held_by_the_network_is_back_pressure(agent):
    network = Cut()
    one, two = agent("a1", shaping=network), agent("a2")
    one.dial(two)
    one.expect(LinkOpened)
    network.cut = True
    for _ in range(4):
        one.links.send(two.node, b"x")
    assert one.expect(SendFailed) == SendFailed(two.node, Refusal.BACKPRESSURE)


# ---- the end


def test_stopping_returns_at_once_and_reports_nothing_more(pair):
    one, two = pair
    one.dial(two)
    one.links.send(two.node, bytes(MESSAGE_BUDGET))
    before = list(one.inputs)
    one.links.stop()
    two.expect(LinkLost)
    assert one.inputs == before


@pytest.mark.parametrize("renamed", [0, 1], ids=["the dialler", "the dialled"])
def test_an_agent_that_takes_a_higher_boot_ends_its_links_and_is_dialled_under_the_new_one(pair, renamed):
    changed, other = pair[renamed], pair[1 - renamed]
    changed.node = NodeId("fra", changed.node.name, 9)
    changed.links.become(changed.node)
    assert changed.expect(LinkLost).peer == other.node
    assert other.expect(LinkLost).peer.boot == 1
    other.dial(changed)
    assert other.expect(LinkOpened) == LinkOpened(changed.node)
    assert changed.expect(LinkOpened) == LinkOpened(other.node)
