"""How the agent itself is: health for people and load balancers, numbers for Prometheus."""

from dislocate import __version__
from dislocate.edge import metrics
from dislocate.edge.answers import HealthAnswer, brakes_of, count_states
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation


def get_health(call: Call) -> HealthAnswer:
    """Always 200 while the agent answers: that others are out of reach is no fault of this one."""
    node = call.node
    datacenters = node.datacenters
    unreachable = tuple(name for name, view in datacenters.items() if not view.reachable)
    brakes = brakes_of(datacenters)
    return HealthAnswer(
        status="degraded" if unreachable or brakes else "ok",
        node=call.agent.node.path,
        boot=call.agent.node.boot,
        version=__version__,
        is_relay=node.is_relay,
        members=count_states(node.members.values()),
        services=len(node.catalog.names()),
        unreachable=unreachable,
        brakes=brakes,
    )


def get_metrics(call: Call) -> bytes:
    return metrics.render(call.backend, call.agent.counters)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/health",
        role=Role.READ,
        summary="This agent, and what it sees in numbers",
        respond=get_health,
        answer=HealthAnswer,
    ),
    Operation(
        method="GET",
        path="/api/metrics",
        role=Role.READ,
        summary="Numbers in Prometheus' text format",
        respond=get_metrics,
        media="text/plain; version=0.0.4; charset=utf-8",
    ),
)
