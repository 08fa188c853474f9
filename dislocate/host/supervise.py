"""Supervision: processes that the agent runs for its operator, and how one version takes the place of another.

Invariants: what runs in the end is what the definition on disk says, everything else is ended; a definition is replaced only
when all instances of the new one pass, so a new version that does not never takes anything away from the old one; nobody is
ended before it was drained for as long as its definition says.

    state_dir/processes/NAME/definition     what is to run: `before.Definition`, secrets sealed
    state_dir/processes/NAME/PORT.json      one instance: `instances.Record`
    state_dir/processes/NAME/log, log.1     what all of them write

Processes outlive the agent.  One that starts anew adopts those of its definition, starts those that died, and ends those of
any other version: a roll that was cut short either had replaced the definition or had not.
"""

import logging
import re
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path as FilePath

import gevent
import msgspec
from gevent.lock import RLock
from msgspec import Struct

from dislocate.core.units import SECOND
from dislocate.host.before import Definition, make_private, sync_directory, write_durably
from dislocate.host.instances import Instance, Record, read_instances
from dislocate.host.logs import rotate
from dislocate.host.ports import choose_ports
from dislocate.host.presence import NotReady, Presence
from dislocate.host.secrets import Secrets
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure

BACKOFF_MIN = 1.0  # seconds before a process that died is started again, doubled each time
BACKOFF_MAX = 60.0
STEADY = 60.0  # seconds that it lives until its next death is a first one again
LOG_LOOKED_AT = 10.0  # seconds
REGISTERED = "DISLOCATE_REGISTERED"  # 'SERVICE ID PORT', in the environment: `serve` there leaves registering to us
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)

log = logging.getLogger(__name__)

# Fills in the templates of a definition's environment.  Raises `Failure`.
FillsIn = Callable[[Definition], dict[str, str]]


class Running(Struct):
    """One process by name, as it is run now."""

    definition: Definition
    instances: list[Instance]
    keepers: dict[int, gevent.Greenlet]  # by port


class _Change:
    """One change under way; decided when the definition is about to be replaced."""

    def __init__(self, name: str, wanted: Definition | None) -> None:
        self.name = name
        self.wanted = wanted
        self.is_decided = False


class Supervisor:
    """All processes of one agent."""

    def __init__(
        self,
        state_dir: FilePath,
        *,
        presence: Presence,
        fill_in: FillsIn,
        secrets_of: Callable[[Definition], Secrets],
    ) -> None:
        self._root = state_dir / "processes"
        self._presence = presence
        self._fill_in = fill_in
        self._secrets_of = secrets_of
        self._running: dict[str, Running] = {}
        self._locks: dict[str, RLock] = {}
        self._greenlets: set[gevent.Greenlet] = set()
        self._is_stopping = False

    # ---- a life

    def start(self) -> None:
        """Adopt what runs, start what should, end what should not; returns at once."""
        self._spawn(self._look_at_logs)
        for directory in sorted(self._root.glob("*/")):
            self._spawn(self._adopt, directory.name)

    def stop(self) -> None:
        """Look after nothing any more; the processes live on, and the next agent ends those that are not to."""
        self._is_stopping = True
        gevent.killall(tuple(self._greenlets))

    def definition(self, name: str) -> Definition | None:
        """What is to run under this name.  Raises `Failure`."""
        if not _NAME.fullmatch(name):
            raise Failure("apply", f"{name!r} is no name of a process; use letters, digits and '._-', at most 64")
        path = self._root / name / "definition"
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=Definition)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise Failure("apply", f"{path} cannot be read ({error}); end what runs there and remove it") from None

    # ---- changing what runs

    def become(self, name: str, wanted: Definition | None) -> None:
        """Make it run as `wanted`, or not at all.  Raises `Failure`: then it runs as before.

        When nobody waits any more, a change that is not decided is given up; one that is goes on to its end."""
        change = _Change(name, wanted)
        greenlet = self._spawn(self._carry_out, change)
        try:
            failure = greenlet.get()
        except BaseException:
            if not change.is_decided:
                greenlet.kill(block=False)
            raise
        if failure is not None:
            raise failure

    def _carry_out(self, change: _Change) -> Failure | None:
        """Not raised here: gevent would print it."""
        try:
            with self._lock(change.name):
                if change.wanted is None:
                    self._forget(change)
                else:
                    self._change(change, change.wanted)
        except NotReady as failure:
            said = failure.instance.last_words(self._secrets_in_log(change))
            return Failure(failure.kind, failure.words + (f".  Its log ends: {said}" if said else ""))
        except Failure as failure:
            return failure
        except OSError as error:
            return Failure("apply", str(error))
        return None

    def _secrets_in_log(self, change: _Change) -> Secrets:
        """Of both versions, since both write to it."""
        running = self._running.get(change.name)
        definitions = [each for each in (change.wanted, running and running.definition) if each]
        return reduce(Secrets.beside, map(self._secrets_of, definitions))

    def _change(self, change: _Change, wanted: Definition) -> None:
        """New instances first; when they pass it is decided, and those that are too many go."""
        before = self._running.get(change.name)
        present = self._present(change.name)
        staying: list[Instance] = []
        if before is not None and before.definition.version == wanted.version:
            staying = present[: wanted.resource.count]
        lacking = wanted.resource.count - len(staying)
        fresh = self._start_all(change.name, wanted, lacking, [instance.port for instance in present])
        change.is_decided = True
        try:
            in_thread(self._write, change.name, wanted)
        except OSError:
            self._end_all(fresh)
            raise
        leaving = [instance for instance in present if instance not in staying]
        keepers = before.keepers if before is not None else {}
        self._running[change.name] = Running(wanted, [*staying, *fresh], keepers)
        for instance in staying:
            instance.adjust(wanted.resource)
        for instance in fresh:
            self._keep(change.name, instance)
        self._retire(leaving, keepers)

    def _forget(self, change: _Change) -> None:
        change.is_decided = True
        present = self._present(change.name)
        running = self._running.pop(change.name, None)
        in_thread(self._write, change.name, None)
        self._retire(present, running.keepers if running is not None else {})

    def _present(self, name: str) -> list[Instance]:
        """All instances, also those that nothing is known of but their records."""
        running = self._running.get(name)
        return running.instances if running is not None else read_instances(self._root / name)

    def _write(self, name: str, wanted: Definition | None) -> None:
        path = self._root / name / "definition"
        if wanted is not None:
            write_durably(path, msgspec.msgpack.encode(wanted))
        elif path.exists():
            path.unlink()
            sync_directory(path.parent)

    def _start_all(self, name: str, wanted: Definition, count: int, taken: list[int]) -> list[Instance]:
        """`count` new instances that pass, here and in the catalog; or none, and `Failure`."""
        resource = wanted.resource
        directory = self._root / name
        in_thread(make_private, directory)
        fresh = [
            Instance(
                directory, Record(port, wanted.version, resource.service, resource.drain_for, resource.stop_within)
            )
            for port in choose_ports(resource, count, taken, self._presence.address)
        ]
        deadline = time.monotonic() + resource.ready_within / SECOND
        try:
            for instance in fresh:
                self._launch(wanted, instance)
            for instance in fresh:
                self._presence.await_health(resource, instance, deadline)
            for instance in fresh:
                self._presence.register(resource, instance)
            for instance in fresh:
                self._presence.await_catalog(resource, instance, deadline)
        except BaseException:  # also when nobody waits any more: what is not to run is ended
            if not self._is_stopping:
                self._end_all(fresh)
            raise
        return fresh

    def _retire(self, leaving: list[Instance], keepers: dict[int, gevent.Greenlet]) -> None:
        """Drain them, wait, end them."""
        for instance in leaving:
            keeper = keepers.pop(instance.port, None)
            if keeper is not None:
                keeper.kill()
        self._presence.drain(leaving)
        self._end_all(leaving)

    def _end_all(self, instances: list[Instance]) -> None:
        self._presence.deregister(instances)
        gevent.joinall([self._spawn(instance.end) for instance in instances])

    # ---- one instance

    def _launch(self, definition: Definition, instance: Instance) -> None:
        resource = definition.resource
        own = {"PORT": str(instance.port), "ADDRESS": self._presence.address}
        if resource.service:
            own[REGISTERED] = f"{resource.service} {instance.id} {instance.port}"
        command = [part.replace("{port}", own["PORT"]).replace("{address}", own["ADDRESS"]) for part in resource.run]
        known = {
            "DISLOCATE_AGENT": f"unix:{self._root.parent}/http.sock"
        }  # its client asks us, unless it is told otherwise
        instance.start(command, resource.directory, {**known, **self._fill_in(definition), **own})

    def _keep(self, name: str, instance: Instance) -> None:
        """Start it again whenever it dies."""
        self._running[name].keepers[instance.port] = self._spawn(self._keep_alive, name, instance)

    def _keep_alive(self, name: str, instance: Instance) -> None:
        pause = 0.0
        while True:
            began = time.monotonic()
            instance.wait()
            pause = pause_before_restart(pause, time.monotonic() - began)
            log.warning("%s on port %d: %s; started again in %g s", name, instance.port, instance.how_it_ended, pause)
            gevent.sleep(pause)
            self._relaunch(name, self._running[name].definition, instance)

    # ---- after a restart of the agent

    def _adopt(self, name: str) -> None:
        """What runs and should is kept, what should and does not is started, everything else is ended."""
        with self._lock(name):
            try:
                definition = self.definition(name)
            except Failure as failure:
                log.error("%s", failure)
                return
            found = read_instances(self._root / name)
            wanted = [one for one in found if definition is not None and one.record.version == definition.version]
            if definition is not None:
                self._running[name] = Running(definition, wanted, {})
                for instance in wanted:
                    self._take_up(name, definition, instance)
            self._retire([one for one in found if one not in wanted], {})
        if definition is not None and len(wanted) != definition.resource.count:  # a change of that number was cut short
            not_done = self._carry_out(_Change(name, definition))
            if not_done is not None:
                log.error("%s", not_done)

    def _take_up(self, name: str, definition: Definition, instance: Instance) -> None:
        if not instance.find():
            self._relaunch(name, definition, instance)
        self._keep(name, instance)
        self._spawn(self._presence.register_again, definition.resource, instance)

    def _relaunch(self, name: str, definition: Definition, instance: Instance) -> None:
        try:
            self._launch(definition, instance)
        except (Failure, OSError) as error:
            log.error("%s on port %d could not be started: %s", name, instance.port, error)

    # ---- small things

    def _look_at_logs(self) -> None:
        while True:
            gevent.sleep(LOG_LOOKED_AT)
            for path in self._root.glob("*/log"):
                try:
                    in_thread(rotate, path)
                except OSError as error:
                    log.warning("%s cannot be rotated: %s", path, error)

    def _lock(self, name: str) -> RLock:
        return self._locks.setdefault(name, RLock())

    def _spawn(self, call: Callable[..., object], *arguments: object) -> gevent.Greenlet:
        greenlet = gevent.spawn(call, *arguments)
        self._greenlets.add(greenlet)
        greenlet.link(self._greenlets.discard)
        return greenlet


def pause_before_restart(before: float, lived: float) -> float:
    """Seconds to wait, given how long it was `before` this death and how many seconds the process lived.

    The first death after a steady life is answered soon; one that always dies must not take the host with it."""
    if before == 0 or lived >= STEADY:
        return BACKOFF_MIN
    return min(2 * before, BACKOFF_MAX)
