"""A fleet of real processes on loopback: agents, the small services that they check, and what can be done to them.

Links are shaped by the agents themselves with the scenario's link model; faults are steered over each agent's private
socket, so that a cut means here what it means in the simulator.  `with Fleet(...) as fleet:` leaves no process behind.
"""

import shutil
import socket
from pathlib import Path as FilePath
from types import TracebackType
from typing import Any, Self

import msgspec

from dislocate.client.connection import AgentConnection
from dislocate.core.errors import ConfigError, DislocateError
from dislocate.core.identity import Path
from dislocate.fleet.blueprint import STORY, TOKEN, AgentPlan, ServicePlan, claim_network, plan_callers, write
from dislocate.fleet.called import TROUBLE, CalledPlan, Trouble
from dislocate.fleet.calling.words import CallersPlan
from dislocate.fleet.observer import Observer
from dislocate.fleet.processes import FleetProcess, ProcessFailed, stop_all
from dislocate.host.instances import end_processes
from dislocate.host.leftovers import end_leftovers
from dislocate.strict import one_of
from sim.scenario import Scenario, Service

STEERING_TIMEOUT = 10.0  # seconds: an agent takes it in its next turn, which a machine that starts a fleet may delay


class SteeringFailed(DislocateError):
    """An agent did not take a shaping command; some others may have."""


class Fleet:
    """Processes by name: agents by path, services as 'dc/service#i'."""

    def __init__(self, scenario: Scenario, directory: FilePath, *, record: bool = False) -> None:
        self.scenario = scenario
        self.directory = directory
        self.network, self._claim = claim_network()
        self.plans = write(scenario, directory, network=self.network)
        self.agents = {path: self._agent(plan, record) for path, plan in self.plans.items()}
        self.services = {
            str(service.instance): _service(service, directory)
            for plan in self.plans.values()
            for service in plan.services
        }
        (directory / STORY).unlink(missing_ok=True)  # of an earlier fleet in this directory
        self.callers_plans = plan_callers(scenario, self.plans, directory)  # by 'WORKLOAD@dc/aJ'
        self.callers = {name: _callers(name, plan, directory) for name, plan in self.callers_plans.items()}
        self.observers = {path: Observer(plan) for path, plan in self.plans.items()}
        self._paused: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every process; returns when each agent said `ready`.  Raises `ProcessFailed`."""
        for service in self.services.values():
            service.start()
        for agent in self.agents.values():
            agent.start()
        for callers in self.callers.values():
            callers.start()
        for process in (*self.agents.values(), *self.callers.values()):
            process.wait_ready()

    def tell_story(self, began: int) -> None:
        """Let the callers begin, who wait for it: the story began at `began` of the monotonic clock."""
        path = self.directory / STORY
        path.with_suffix(".new").write_text(str(began))
        path.with_suffix(".new").rename(path)

    def check_callers(self) -> None:
        """Raises `ProcessFailed` where callers have ended: they would have called on."""
        for name, process in self.callers.items():
            if not process.is_running:
                raise ProcessFailed(name, "ended while it should call", process.log)

    def stop(self) -> None:
        """End every process."""
        stop_all([*self.callers.values(), *self.agents.values(), *self.services.values()])
        states = [self.home(path) / "state" for path in self.plans]
        end_processes(*states)  # what agents run outlives them
        for state in states:
            end_leftovers(state)
        self._claim.close()

    def home(self, path: Path) -> FilePath:
        """The directory of one agent: agent.toml, agent.log, state/."""
        return self.directory / path

    @property
    def token(self) -> str:
        """Of `STEERER`: an operator who is not the user that started the fleet."""
        return (self.directory / TOKEN).read_text(encoding="utf-8").strip()

    def living(self) -> list[Observer]:
        """The agents that can answer: running and not paused."""
        return [
            observer
            for path, observer in self.observers.items()
            if self.agents[path].is_running and path not in self._paused
        ]

    # ---- what can be done to it

    def is_running(self, name: str) -> bool:
        """Whether an agent or a service has a process."""
        return self._process(name).is_running

    def kill(self, name: str) -> None:
        """SIGKILL an agent ('dc/aJ') or a service ('dc/service#i')."""
        self._process(name).kill()
        self._paused.pop(name, None)

    def restart(self, name: str) -> None:
        """Start a process with the disk that it had; one that still runs is killed first, as in the simulator."""
        self.kill(name)
        process = self._process(name)
        process.start()
        if name in self.agents:
            process.wait_ready()

    def wipe(self, path: Path) -> None:
        """Empty the state directory of an agent; one that runs is killed first and does not start by itself."""
        self.kill(path)
        state = self.home(path) / "state"
        end_processes(state)
        end_leftovers(state)
        shutil.rmtree(state)
        state.mkdir()

    def stop_gently(self, path: Path) -> None:
        """SIGTERM: the agent announces a planned restart and ends."""
        self.agents[path].terminate()

    def pause(self, name: str) -> None:
        """SIGSTOP an agent or a service."""
        self._process(name).pause()
        self._paused[name] = None

    def resume(self, name: str) -> None:
        self._process(name).resume()
        self._paused.pop(name, None)

    def steer(self, **command: Any) -> None:
        """Tell every running agent how links change: `do` cut, heal, slow or loss, `from`, `to`, `oneway`, `channels`.

        A paused agent takes it when it wakes up.  Raises `SteeringFailed` when one refuses."""
        data = msgspec.json.encode(command) + b"\n"
        for path, agent in self.agents.items():
            if agent.is_running:
                self._steer_one(path, str(self.home(path) / "state" / "shaping.sock"), data)
        for name, callers in self.callers.items():
            if callers.is_running:
                self._steer_one(name, self.callers_plans[name].steering, data)

    def trouble(self, name: str, slowness: float = 1.0, fails: float = 0.0) -> None:
        """Let a service that is called ('dc/service#i') serve so much slower, or answer so many requests with an error.

        One that does not run is started without trouble."""
        plan = self.check_called(name, "target")
        if self.is_running(name):
            body = msgspec.json.encode(Trouble(slowness, fails))
            AgentConnection(f"http://{plan.host}:{plan.port}").raw("PUT", TROUBLE, body)

    def check_called(self, name: str, field: str) -> ServicePlan:
        """The plan of a service.  Raises `ConfigError` for one that nobody calls: it serves nothing."""
        plan = next(one for each in self.plans.values() for one in each.services if str(one.instance) == name)
        if plan.called is None:
            mend = 'a service that a workload of kind "requests" calls'
            raise ConfigError(field, got=name, expected=mend)
        return plan

    def _steer_one(self, name: str, where: str, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(STEERING_TIMEOUT)
            control.connect(where)
            control.sendall(data)
            if name in self._paused:
                return
            answer = control.makefile("rb").readline()
        if not msgspec.json.decode(answer).get("ok"):
            raise SteeringFailed(f"{name}: {answer.decode()}")

    def _process(self, name: str) -> FleetProcess:
        process = self.agents.get(name) or self.services.get(name)
        if process is None:
            raise ConfigError("target", got=name, expected=one_of(name, [*self.agents, *self.services]))
        return process

    def _agent(self, plan: AgentPlan, record: bool) -> FleetProcess:
        home = self.home(plan.path)
        arguments = ["-m", "dislocate", "agent", "--config", str(home / "agent.toml")]
        arguments += ["--shaping", str(home / "shaping.json")]
        if record:
            arguments += ["--record", str(home / "recording")]
        return FleetProcess(plan.path, arguments, home / "agent.log")


def _service(plan: ServicePlan, directory: FilePath) -> FleetProcess:
    name = str(plan.instance)
    home = directory / plan.owner
    log = home / f"{plan.instance.id}.log"
    if plan.called is None:
        return FleetProcess(name, ["-m", "dislocate.fleet.service", plan.host, str(plan.port), name], log)
    file = home / f"{plan.instance.id}.json"
    file.write_bytes(msgspec.json.encode(_called(plan, plan.called, home)))
    return FleetProcess(name, ["-m", "dislocate.fleet.called", str(file)], log)


def _called(plan: ServicePlan, service: Service, home: FilePath) -> CalledPlan:
    return CalledPlan(
        name=str(plan.instance),
        service=service.name,
        id=plan.instance.id,
        agent=f"unix:{home / 'state' / 'http.sock'}",
        host=plan.host,
        port=plan.port,
        interval=plan.interval,
        timeout=plan.timeout,
        workers=service.workers,
        takes=service.takes,
        queue=service.queue,
    )


def _callers(name: str, plan: CallersPlan, directory: FilePath) -> FleetProcess:
    workload = name.partition("@")[0]
    file = directory / plan.path / f"{workload}.json"
    file.write_bytes(msgspec.json.encode(plan))
    FilePath(plan.reports).unlink(missing_ok=True)  # of an earlier fleet
    return FleetProcess(name, ["-m", "dislocate.fleet.calling", str(file)], file.with_suffix(".log"))
