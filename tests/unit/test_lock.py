"""`dislocate lock`: a real command under a lock of a fake agent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dislocate.cli import lock as command
from dislocate.cli.output import EXIT_FAILED
from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.client.lock import NOTE_LIMIT, Lock, LockLost, NotTaken, holder_of
from dislocate.core.units import SECOND
from tests.support.fake_agent import fake_agent

LOOKS_SOON = "6s"  # a ttl: a third of it between two looks, and it is not lost if one of them is seconds late
TERM_IS_IGNORED = "trap '' TERM; echo started; while :; do sleep 0.05; done"


@pytest.fixture
def agent():
    with fake_agent() as agent:
        yield agent


class Locked:
    """`dislocate lock` as a process of its own."""

    def __init__(self, agent, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dislocate", "lock", "--agent", agent.url, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell without job control ignores SIGINT for what it runs in the background, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def end(self):
        """Exit code, standard output, standard error."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


@pytest.fixture
def locked(agent):
    started = []

    def start(*words):
        started.append(Locked(agent, *words))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.communicate()


@pytest.fixture
def gate(tmp_path):
    """A command that does `read x < GATE` goes on when the test opens it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # so that nobody hangs in opening it
    yield path
    os.close(descriptor)


def open_gate(gate):
    gate.write_text("go on\n")


def keepalives(agent):
    return sum(path.endswith("/keepalive") for _, path in agent.asked)


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it is gone, or goes while we read
        return False


def until_dead(pid, seconds=60.0):
    ends = time.monotonic() + seconds
    while lives(pid):
        assert time.monotonic() < ends
        time.sleep(0.01)


# ---- the command


def test_the_command_gets_the_token_and_its_own_output_and_exit_code(agent, locked):
    agent.put("other", "x")
    script = 'echo "$DISLOCATE_LOCK_TOKEN $DISLOCATE_LOCK_KEY"; exit 7'
    code, out, err = locked("deploy/shop", "--", "sh", "-c", script).end()
    token = int(out.split()[0])
    assert (code, out, err) == (7, f"{token} deploy/shop\n", "")
    assert token > 1
    assert agent.keys.keys() == {"other"}
    assert agent.leases == {}


def test_a_command_ended_by_a_signal_exits_as_in_a_shell(locked):
    assert locked("k", "--", "sh", "-c", "kill -9 $$").end()[0] == 137


def test_the_lock_is_kept_for_longer_than_its_ttl(agent, locked, gate):
    one = locked("k", "--ttl", "4s", "--", "sh", "-c", f"echo started; read x < {gate}")
    assert one.line() == "started"
    ((lease, (ttl, ends)),) = agent.leases.items()
    agent.wait_for(lambda: agent.leases[lease][1] > ends + ttl)
    open_gate(gate)
    assert one.end()[0] == 0


def test_who_waits_is_woken_by_the_release_and_has_a_higher_token(agent, locked, gate):
    first = locked("k", "--", "sh", "-c", f"echo $DISLOCATE_LOCK_TOKEN; read x < {gate}")
    token = int(first.line())
    second = locked("k", "--", "sh", "-c", "echo $DISLOCATE_LOCK_TOKEN")
    agent.wait_for(lambda: any("index=" in path for _, path in agent.asked))
    open_gate(gate)
    code, out, err = second.end()
    assert (code, int(out) > token) == (0, True)
    assert "waiting: k is held by" in err
    assert first.end()[0] == 0


def test_a_lock_that_is_held_is_not_awaited_with_try_and_not_for_longer_than_wait(agent, locked):
    agent.put("k", "somebody, process 7: make deploy")
    code, out, err = locked("k", "--try", "--", "echo", "no").end()
    assert (code, out) == (1, "")
    assert err.startswith("k is held by somebody, process 7: make deploy")
    code, out, err = locked("k", "--wait", "100ms", "--", "echo", "no").end()
    assert (code, out) == (1, "")
    assert agent.leases == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("k",), "Missing argument"),
        (("k", "--try", "--wait", "1s", "--", "true"), "expected one"),
        (("k", "--", "no-such-program"), "no-such-program"),
        (("k", "--ttl", "5", "--", "true"), "--ttl: got '5', expected a duration"),
        (("/k", "--", "true"), "not beginning with '/'"),
        (("k", "--ttl", "10ms", "--", "true"), "1s to 168h"),
    ],
)
def test_a_slip_of_the_pen_is_told_and_asks_nobody(agent, locked, words, said):
    code, out, err = locked(*words).end()
    assert code in (1, 2)
    assert said in err
    assert (out, list(agent.asked)) == ("", [])


def test_an_agent_that_is_not_there_is_exit_code_3(agent, locked):
    agent.url = "unix:/nope"
    assert locked("k", "--", "true").end()[0] == 3


# ---- losing it


def test_when_the_lease_has_ended_the_command_and_its_children_get_sigterm(agent, locked):
    script = "trap 'echo ended; exit 0' TERM; sleep 60 & echo $!; wait"
    one = locked("k", "--ttl", LOOKS_SOON, "--", "sh", "-c", script)
    child = int(one.line())
    agent.end_leases()
    code, out, err = one.end()
    assert (code, out) == (1, "ended\n")
    assert "its lease has ended" in err
    until_dead(child)


def test_a_command_that_ignores_sigterm_is_killed(agent, locked):
    one = locked("k", "--ttl", "2s", "--", "sh", "-c", TERM_IS_IGNORED)
    assert one.line() == "started"
    agent.status = 503
    code, _, err = one.end()
    assert (code, "not kept alive in time" in err) == (1, True)
    assert "missing: wdc/b1" in err


def test_a_command_has_so_long_to_heed_sigterm_that_it_is_killed_before_the_lease_can_end(agent, monkeypatch):
    lock, said = new_lock(agent, now=lambda: 0.0, ttl=1 * SECOND)
    lock.take(None)
    killed_at = []

    def end_group(process, within):
        killed_at.append(lock.safe_until + within)
        process.kill()

    def lose():
        raise LockLost("in the last moment in which it is held for certain")

    monkeypatch.setattr(lock, "keep", lose)
    monkeypatch.setattr(command, "end_group", end_group)
    monkeypatch.setattr(command, "_guard", lambda: (lambda: None, lambda: None))
    assert command.run_under(lock, "k", ("sleep", "600"), said.append) == EXIT_FAILED
    assert lock.safe_until < killed_at[0] < lock.ttl


def test_a_key_that_somebody_deleted_is_a_lock_lost_though_the_lease_lives(agent, locked):
    one = locked("k", "--ttl", LOOKS_SOON, "--", "sh", "-c", "echo started; sleep 600")
    assert one.line() == "started"
    agent.delete("k")
    code, _, err = one.end()
    assert (code, "somebody deleted the key" in err) == (1, True)


def test_a_key_that_somebody_overwrote_is_a_lock_lost_since_it_would_stay_when_the_lease_ends(agent, locked):
    one = locked("k", "--ttl", LOOKS_SOON, "--", "sh", "-c", "echo started; sleep 600")
    assert one.line() == "started"
    agent.put("k", "mine now")
    code, _, err = one.end()
    assert (code, "somebody overwrote the key" in err) == (1, True)


def test_a_holder_that_slept_past_its_lease_stops_at_once(agent, locked):
    one = locked("k", "--ttl", LOOKS_SOON, "--", "sh", "-c", "echo $$; sleep 600")
    child = int(one.line())
    os.kill(one.process.pid, signal.SIGSTOP)
    agent.end_leases()
    os.kill(one.process.pid, signal.SIGCONT)
    assert one.end()[0] == 1
    assert not lives(child)


def test_a_short_outage_is_survived(agent, locked, gate):
    one = locked("k", "--ttl", "9s", "--", "sh", "-c", f"echo started; read x < {gate}")
    assert one.line() == "started"
    agent.status = 503
    before = keepalives(agent)
    agent.wait_for(lambda: keepalives(agent) > before)
    agent.status = 200
    refused = keepalives(agent)
    agent.wait_for(lambda: keepalives(agent) > refused)
    open_gate(gate)
    code, _, err = one.end()
    assert (code, "asking again" in err) == (0, True)


# ---- being ended


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_handed_on_and_the_lock_is_given_back(agent, locked, sign):
    one = locked("k", "--", "sh", "-c", "trap 'exit 5' TERM INT; echo started; while :; do sleep 0.05; done")
    assert one.line() == "started"
    one.process.send_signal(sign)
    assert one.end()[0] == 5
    assert (agent.keys, agent.leases) == ({}, {})


def test_a_signal_while_waiting_ends_the_wait_and_gives_the_lease_back(agent, locked):
    agent.put("k", "somebody")
    one = locked("k", "--", "echo", "no")
    agent.wait_for(lambda: any("index=" in path for _, path in agent.asked))
    one.process.terminate()
    assert one.end()[:2] == (143, "")
    assert agent.leases == {}


def test_a_command_does_not_outlive_a_killed_holder(locked):
    one = locked("k", "--", "sh", "-c", "echo $$; exec sleep 60")
    child = int(one.line())
    one.process.kill()
    until_dead(child)


def test_what_the_command_started_does_not_outlive_a_killed_holder_whatever_it_ignores(locked):
    one = locked("k", "--", "sh", "-c", "trap '' TERM HUP INT; sh -c 'echo $$; exec sleep 60' & wait")
    grandchild = int(one.line())
    os.killpg(one.process.pid, signal.SIGTERM)
    os.killpg(one.process.pid, signal.SIGKILL)  # and all of its own group with it
    until_dead(grandchild)


def test_what_the_command_leaves_behind_on_purpose_lives_on_when_it_ends(locked):
    one = locked("k", "--", "sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!")
    left = int(one.line())
    assert one.end()[0] == 0
    assert lives(left)
    os.kill(left, signal.SIGKILL)


# ---- taking it


def new_lock(agent, key="k", ttl=100 * SECOND, **options):
    said = []
    lock = Lock(AgentConnection(agent.url), key, ttl=ttl, note="me", say=said.append, **options)
    return lock, said


def test_a_put_whose_answer_was_lost_is_found_to_be_ours(agent, monkeypatch):
    lock, _ = new_lock(agent)
    plain = lock._agent.raw

    def lost(*arguments):
        plain(*arguments)
        raise Problem(504, {"status": 504, "detail": "It may have been done"})

    monkeypatch.setattr(lock._agent, "raw", lost)
    assert lock.take(0.0) == agent.keys["k"]["created"]
    lock.release()
    assert agent.keys == {}


def test_a_lease_that_ended_while_waiting_is_taken_anew(agent, monkeypatch):
    lock, _ = new_lock(agent)
    grant = lock._grant

    def grant_and_lose():
        grant()
        agent.leases.clear()
        monkeypatch.setattr(lock, "_grant", grant)

    monkeypatch.setattr(lock, "_grant", grant_and_lose)
    assert lock.take(0.0) == agent.keys["k"]["created"]


def test_a_store_without_a_majority_is_said_at_once_to_who_does_not_wait(agent):
    lock, _ = new_lock(agent)
    agent.status = 503
    with pytest.raises(Problem, match="missing: wdc/b1"):
        lock.take(0.0)


def test_by_its_own_clock_a_holder_gives_up_before_the_lease_can_end(agent):
    clock = [0.0]
    lock, said = new_lock(agent, now=lambda: clock[0])
    lock.take(None)
    assert lock.keep() == pytest.approx(100 / 3), "two signs of life may be lost"
    agent.status = 503
    assert lock.safe_until == pytest.approx(80)
    clock[0] = 79.9
    assert 0 < lock.keep() <= 0.11
    clock[0] = 80.0
    with pytest.raises(LockLost, match="not kept alive in time"):
        lock.keep()
    assert len(said) == 1


def test_somebody_else_s_lock_is_not_taken(agent):
    agent.put("k", "them")
    lock, _ = new_lock(agent)
    with pytest.raises(NotTaken, match="k is held by them"):
        lock.take(0.05)


def test_a_lock_that_nobody_will_free_names_what_does(agent):
    agent.put("a b", "by hand")
    lock, _ = new_lock(agent, "a b")
    with pytest.raises(NotTaken, match=r"for ever: the key has no lease\nfree it: dislocate kv delete 'a b'"):
        lock.take(0.0)
    agent.delete("a b")
    other, _ = new_lock(agent, "a b")
    other.take(0.0)
    with pytest.raises(NotTaken, match=r"^a b is held by me$"):
        lock.take(0.0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("host, process 7:\n  make  deploy\n", "host, process 7: make deploy"),
        ("\x1b[2J\x1b]0;gotcha\x07red\u202e", "[2J]0;gotchared"),
        ("x" * 256_000, "x" * NOTE_LIMIT),
        ("", ""),
    ],
)
def test_of_whatever_the_key_holds_one_line_is_shown(value, shown):
    assert holder_of({"value": value}) == shown


def test_a_holder_that_is_no_text_is_counted():
    assert holder_of({"value": "/wA=", "encoding": "base64"}) == "(2 bytes)"


def test_an_agent_that_goes_away_while_held_is_asked_again_and_then_given_up(agent):
    clock = [0.0]
    lock, said = new_lock(agent, now=lambda: clock[0])
    lock.take(None)
    lock._agent.where = "unix:/nope"
    lock.keep()
    assert "asking again" in said[0]
    clock[0] = 90.0
    with pytest.raises(LockLost):
        lock.keep()
    lock.release()
    assert "it ends by itself" in said[-1]


def test_a_sign_of_life_without_an_answer_leaves_time_for_another(agent, monkeypatch):
    """A leader that dies takes with it what it was asked; the next one is there soon, and takes the same question."""
    clock = [0.0]
    lock, _ = new_lock(agent, now=lambda: clock[0])
    lock.take(None)
    answers, send = [NoAgent("there", "timed out")] * 2, lock._agent.send

    def slow(method, path, body=None, timeout=0.0):
        clock[0] += timeout if answers else 0.0
        if answers:
            raise answers.pop()
        return send(method, path, body, timeout)

    monkeypatch.setattr(lock._agent, "send", slow)
    clock[0] = 34.0
    while clock[0] < lock.safe_until and answers:
        clock[0] += lock.keep()
    assert lock.keep() == pytest.approx(100 / 3), "the third one was heard in time"


def test_an_agent_that_is_not_there_at_first_is_said_at_once(agent):
    agent.url = "unix:/nope"
    with pytest.raises(NoAgent):
        new_lock(agent)[0].take(None)
