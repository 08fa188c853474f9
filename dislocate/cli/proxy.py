"""`dislocate proxy`: balanced TCP for programs that cannot pick by themselves."""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic

import click

from dislocate.cli.output import EXIT_FAILED, agent_command, fail
from dislocate.client.connection import AgentConnection
from dislocate.core.errors import LocalError
from dislocate.core.units import SECOND, parse_duration
from dislocate.proxy.entrance import listen_at
from dislocate.proxy.routes import AgentRoutes, EmptyService, UnknownService
from dislocate.proxy.settings import Limits, Listen, Plan, parse_listen
from dislocate.proxy.tally import Report, to_json
from dislocate.proxy.worker import Worker, settle_process
from dislocate.proxy.workers import Workers, reserve


@click.command()
@click.option(
    "--listen",
    "listens",
    multiple=True,
    required=True,
    metavar="HOST:PORT=SERVICE",
    help="Connections to HOST:PORT go to SERVICE; repeatable.",
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes on the same ports."
)
@click.option("--proxy-protocol", is_flag=True, help="Tell endpoints who connected: a PROXY header, version 2.")
@click.option("--connect-timeout", default="1s", show_default=True, metavar="DURATION", help="Of one try to connect.")
@click.option("--idle-timeout", metavar="DURATION", help="Reset a stream on which nothing moved for so long.")
@click.option(
    "--grace", default="30s", show_default=True, metavar="DURATION", help="Streams may last so long at the end."
)
@click.option(
    "--max-streams", default=0, metavar="N", help="At a time, a process; as many as it can have unless given."
)
@click.option("--every", default="60s", show_default=True, metavar="DURATION", help="Between two reports; 0s: none.")
@agent_command
def proxy(
    agent: AgentConnection,
    as_json: bool,
    listens: Sequence[str],
    workers: int,
    proxy_protocol: bool,
    connect_timeout: str,
    idle_timeout: str | None,
    grace: str,
    max_streams: int,
    every: str,
) -> None:
    """Accept connections and pass each on to an instance of a service, the best one for a caller on this host.

    An instance that cannot be connected to is replaced by another before the client notices.  The agent is needed to begin;
    later, when it is down, the proxy goes on with what it knew last and says so.  SIGTERM ends it: nobody new is accepted,
    open streams may finish within --grace; a second SIGTERM resets them.

    \b
    dislocate proxy --listen 127.0.0.1:5432=db.orders
    dislocate proxy --listen 0.0.0.0:80=shop.web --listen '[::]:80=shop.web' --workers 2 --proxy-protocol
    """
    limits = Limits(
        connect_timeout=positive(connect_timeout, "--connect-timeout"),
        idle=0 if idle_timeout is None else positive(idle_timeout, "--idle-timeout"),
        grace=parse_duration(grace, "--grace"),
        streams=max_streams,
        is_proxy_header_sent=proxy_protocol,
    )
    parsed = tuple(parse_listen(text) for text in listens)
    check_apart(parsed)
    plan = Plan(listens=parsed, agent=agent.where, token=agent.token, limits=limits)
    console = Console(as_json, parse_duration(every, "--every") / SECOND)
    caller = f"proxy-{os.getpid()}-0"
    source = AgentRoutes(agent, plan.services, caller)
    try:
        code = run_alone(plan, source, console, caller) if workers == 1 else run_many(plan, source, console, workers)
    except (EmptyService, UnknownService) as error:
        fail(str(error), as_json, EXIT_FAILED)
    sys.stdout.flush()
    os._exit(code)  # threads that wait for the agent are not waited for


def check_apart(listens: Sequence[Listen]) -> None:
    """Raises `LocalError` for two services at one address: with several workers the kernel would let both have it."""
    known: dict[tuple[str, int], Listen] = {}
    for listen in listens:
        other = known.setdefault((listen.host, listen.port), listen)
        if listen.port and other is not listen:
            raise LocalError("--listen", got=str(listen), expected=f"an address that is not {other.service}'s already")


def positive(text: str, field: str) -> int:
    nanoseconds = parse_duration(text, field)
    if not nanoseconds:
        raise click.UsageError(f"{field}: got {text!r}, expected more than no time")
    return nanoseconds


class Console:
    """What is printed: that it is ready, reports, and on standard error what people should know."""

    def __init__(self, as_json: bool, every: float) -> None:
        self._as_json = as_json
        self._every = every
        self._due = monotonic() + every
        self._last: Report | None = None

    def ready(self, listens: Sequence[Listen]) -> None:
        texts = [str(listen) for listen in listens]
        click.echo(json.dumps({"ready": texts}) if self._as_json else f"ready {' '.join(texts)}")
        sys.stdout.flush()

    def say(self, words: str) -> None:
        click.echo(json.dumps({"proxy": words}) if self._as_json else words, err=True)

    def reported(self, report: Report) -> None:
        """One comes each second; print it when it is due."""
        self._last = report
        if self._every and monotonic() >= self._due:
            self._due = monotonic() + self._every
            self._print(report)

    def end(self) -> None:
        """The sum of it all."""
        if self._last is not None:
            self._print(self._last)

    def _print(self, report: Report) -> None:
        lines = [to_json(report)] if self._as_json else [report.line(service) for service in report.services]
        click.echo("\n".join(lines))
        sys.stdout.flush()


def run_alone(plan: Plan, source: AgentRoutes, console: Console, caller: str) -> int:
    """In this process."""
    bound = [listen_at(listen) for listen in plan.listens]
    worker = Worker(plan, source, bound, caller, console.say)
    end_by_signals(worker.end)
    settled = [
        Listen(listen.host, entrance.port, listen.service)
        for listen, entrance in zip(plan.listens, worker.entrances, strict=True)
    ]
    settle_process()
    worker.run(ready=lambda: console.ready(settled), reported=console.reported)
    console.end()
    return 0


def run_many(plan: Plan, source: AgentRoutes, console: Console, count: int) -> int:
    """In `count` processes of their own, under this one."""
    source.first()  # what is wrong is said once, here
    reserved = [reserve(listen) for listen in plan.listens]
    listens = tuple(listen for listen, _ in reserved)
    many = Workers(Plan(listens=listens, agent=plan.agent, token=plan.token, limits=plan.limits), count, console.say)

    def end() -> None:
        for _, kept in reserved:
            kept.close()  # whoever comes next may have the port, while our streams end
        many.end()

    end_by_signals(end)
    code = many.run(ready=lambda: console.ready(listens), reported=console.reported)
    console.end()
    return code


def end_by_signals(end: Callable[[], None]) -> None:
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: end())
