"""Claims about services: which instances each observer answers with, and how they are.

`of` names services or instances; an instance is one of a data center, whatever host it is on.
"""

from dislocate.core.boundary.values import Status
from dislocate.core.identity import Path
from sim.claims.view import ViewClaim
from sim.observed import Observed
from sim.scenario import Expect
from sim.selectors import as_tuple


def service_passing(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers for `of` (a service, or an instance) with at least `count` passing instances, or all."""
    for service, chosen in _services(observed, expect):
        seen = {one.id + "@" + one.node.partition("/")[0]: one for one in observed.instances(observer, service)}
        if expect.count and service in as_tuple(expect.of):
            chosen = list(seen)  # those of scaling too, which nobody declared
        passing = [key for key in chosen if key in seen and seen[key].status is Status.PASSING]
        wanted = expect.count or len(chosen)
        if len(passing) < wanted:
            return f"{observer} answers for {service} with {len(passing)} passing of {wanted} wanted"
    return None


def service_status(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers with each instance in `of`, and gives it the status `status`."""
    for service, chosen in _services(observed, expect):
        seen = {one.id + "@" + one.node.partition("/")[0]: one for one in observed.instances(observer, service)}
        for key in chosen:
            found = seen[key].status.value if key in seen else "absent"
            if found != expect.status:
                return f"{observer} says that {key} is {found}"
    return None


def service_absent(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer answers with an instance in `of`."""
    for service, chosen in _services(observed, expect):
        for one in observed.instances(observer, service):
            if one.id + "@" + one.node.partition("/")[0] in chosen:
                return f"{observer} still answers with {one.node}/{one.id}"
    return None


def service_known(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers with each instance in `of`, whatever its status: last known good is kept."""
    for service, chosen in _services(observed, expect):
        seen = [one.id + "@" + one.node.partition("/")[0] for one in observed.instances(observer, service)]
        for key in chosen:
            if key not in seen:
                return f"{observer} does not answer with {key}"
    return None


def _services(observed: Observed, expect: Expect) -> list[tuple[str, list[str]]]:
    """Services with the keys 'id@datacenter' of the instances that the claim is about."""
    chosen: dict[str, list[str]] = {}
    for instance in observed.layout.chosen_instances(expect.of):
        chosen.setdefault(instance.service, []).append(f"{instance.id}@{instance.datacenter}")
    return list(chosen.items())


SERVICE_CLAIMS: dict[str, ViewClaim] = {
    "service_passing": service_passing,
    "service_status": service_status,
    "service_absent": service_absent,
    "service_known": service_known,
}
