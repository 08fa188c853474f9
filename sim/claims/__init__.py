"""Claims: what a scenario may expect, judged from what observers answer, in virtual time or from live agents.

A claim of a view is asked of each observer by itself and says why it does not hold there; a claim of a run looks at what
happened, or at a measured number.  To add one, write the function where its like are and put it into the table there.
"""

from dislocate.core.boundary.values import Status
from dislocate.core.errors import ConfigError
from dislocate.strict import one_of
from sim.claims.members import MEMBER_CLAIMS
from sim.claims.runs import RUN_CLAIMS
from sim.claims.services import SERVICE_CLAIMS
from sim.claims.store import STORE_CLAIMS
from sim.claims.view import ViewClaim
from sim.scenario import Expect
from sim.selectors import Layout, as_tuple
from sim.traffic.claims import REQUEST_CLAIMS

VIEW_CLAIMS: dict[str, ViewClaim] = {**MEMBER_CLAIMS, **SERVICE_CLAIMS, **STORE_CLAIMS, **RUN_CLAIMS}

# Events (`boundary.events`): the claim is that some agent told one.
EVENT_CLAIMS = {
    "suspected": "MemberSuspected",
    "refuted_suspicion": "MemberRefuted",
    "died": "MemberDied",
    "announced_restart": "MemberRestarting",
    "braked": "BrakeChanged",
    "cloned": "CloneDetected",
    "elected": "LeaderElected",
    "deposed": "LeaderDeposed",
    "servers_changed": "ServersChanged",
    "store_troubled": "StoreTroubled",
    "drifted": "Drifted",
}

# Budgets: what is measured, per agent and second; terms are counted.
BUDGET_CLAIMS = {"msgs_per_node_s": "messages", "bytes_per_node_s": "bytes", "terms_grew_at_most": "terms"}


def check_claim(expect: Expect, layout: Layout, field: str) -> None:
    """Raises `ConfigError` naming `field` when `expect` claims what nobody can judge."""
    if expect.kind == "budget":
        table = [*BUDGET_CLAIMS, *REQUEST_CLAIMS]
    elif expect.kind == "always":
        table = [*VIEW_CLAIMS]
    else:
        table = [*VIEW_CLAIMS, *EVENT_CLAIMS]
    if expect.claim not in table:
        raise ConfigError(f"{field}.claim", got=expect.claim, expected=one_of(expect.claim, table))
    if expect.claim in SERVICE_CLAIMS and not layout.chosen_instances(expect.of):
        raise ConfigError(f"{field}.of", got=expect.of, expected="a service, or an instance as dc/service#i")
    statuses = [status.value for status in Status]
    if expect.claim == "service_status" and expect.status not in statuses:
        raise ConfigError(f"{field}.status", got=expect.status, expected=one_of(expect.status, statuses))
    if expect.claim in REQUEST_CLAIMS:
        for selector in as_tuple(expect.of):
            if selector not in layout.services:
                raise ConfigError(f"{field}.of", got=selector, expected=one_of(selector, layout.services))
        return
    for selector in as_tuple(expect.of):
        if expect.claim not in SERVICE_CLAIMS and not layout.agents(selector):
            raise ConfigError(f"{field}.of", got=selector, expected="agents: a data center, dc/aJ or '*'")
