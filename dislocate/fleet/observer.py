"""What one running agent answers: over HTTP as any client hears it, and over DNS as any resolver does."""

from typing import Any

from dnslib import QTYPE, RCODE, DNSRecord

from dislocate.client.connection import AgentConnection
from dislocate.core.identity import Path
from dislocate.fleet.blueprint import DNS_PORT, AgentPlan

TIMEOUT = 2.0  # seconds; a paused agent does not answer, and the next one is to be asked


class Observer:
    """One agent, asked."""

    def __init__(self, plan: AgentPlan) -> None:
        self.plan = plan
        self._connection = AgentConnection(plan.http, timeout=TIMEOUT)

    @property
    def path(self) -> Path:
        return self.plan.path

    def members(self) -> dict[Path, dict[str, Any]]:
        """Members by path, in the shape of GET /api/members.  Raises `NoAgent`."""
        members = self._connection.get("/api/members")["members"]
        return {f"{member['datacenter']}/{member['name']}": member for member in members}

    def datacenters(self) -> dict[str, dict[str, Any]]:
        """Data centers by name, in the shape of GET /api/datacenters.  Raises `NoAgent`."""
        return {one["name"]: one for one in self._connection.get("/api/datacenters")["datacenters"]}

    def services(self) -> dict[str, dict[str, Any]]:
        """Services by name, in the shape of GET /api/services.  Raises `NoAgent`."""
        return {one["name"]: one for one in self._connection.get("/api/services")["services"]}

    def instances(self, service: str) -> list[dict[str, Any]]:
        """Instances, in the shape of GET /api/services/NAME.  Raises `NoAgent`, or `Problem` for an unknown one."""
        return list(self._connection.get(f"/api/services/{service}")["instances"])

    def store(self) -> dict[str, Any]:
        """Where it stands towards the store, in the shape of GET /api/store.  Raises `NoAgent`."""
        return dict(self._connection.get("/api/store"))

    def put_key(self, key: str, value: bytes) -> None:
        """Write a key.  Raises `NoAgent`, also when no answer comes in time, or `Problem`."""
        self._connection.raw("PUT", f"/api/kv/{key}", value)

    def read_key(self, key: str) -> None:
        """Read a key as this agent has it.  Raises `NoAgent` or `Problem`, also when there is no such key."""
        self._connection.get(f"/api/kv/{key}?consistency=local")

    def runs_under_way(self) -> dict[str, str]:
        """By name the latest run that is not over, as this agent has it.  Raises `NoAgent` or `Problem`."""
        runs = self._connection.get("/api/runs?consistency=local")["runs"]
        return {run["name"]: run["id"] for run in reversed(runs)}

    def run(self, run: str) -> dict[str, Any]:
        """A run as this agent has it, in the shape of GET /api/runs/RUN.  Raises `NoAgent` or `Problem`."""
        return dict(self._connection.get(f"/api/runs/{run}?consistency=local"))

    def dns(self, name: str, kind: str = "A") -> tuple[str, list[str]]:
        """(response code, record texts) of one DNS question over UDP.  Raises OSError when nobody answers."""
        question = DNSRecord.question(name, kind)
        reply = DNSRecord.parse(question.send(self.plan.host, DNS_PORT, timeout=TIMEOUT))
        records = [str(record.rdata) for record in reply.rr if QTYPE[record.rtype] == kind]
        return str(RCODE[reply.header.rcode]), records

    def counters(self) -> dict[str, float]:
        """What GET /api/metrics counts, by name with labels as it stands there.  Raises `NoAgent`."""
        counters = {}
        for line in self._connection.text("/api/metrics").splitlines():
            name, _, value = line.rpartition(" ")
            if name and not name.startswith("#"):
                counters[name] = float(value)
        return counters
