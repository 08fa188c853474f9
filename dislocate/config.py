"""The configuration file of an agent: TOML, strict.  `load_config(path)` is all that others call.

An unknown key names the nearest known one, bad TOML its line, a bad value its field, what stood there and the mend; nothing
is started with a file that cannot be meant.  Relative paths are relative to the file.  Reading looks at no other file and
at no socket, so a file may be checked on any host.

    [node]
    name = "a1"
    datacenter = "fra"
    seeds = ["10.0.0.2:49701"]
    [security]
    secret_file = "cluster.secret"
    [[service]]
    name = "shop.web"
    port = 8000
    check = { http = "http://127.0.0.1:8000/health", interval = "5s" }
"""

import re
from collections import Counter
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from dislocate.core.boundary.values import InstanceSpec
from dislocate.core.catalog.validation import check_instances
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import Path, check_label, check_service_name, split_address, split_path
from dislocate.edge.bodies import CheckBody, InstanceBody, instance_spec
from dislocate.edge.http.access import Role, role_named
from dislocate.strict import parse_toml, read_toml

_Port = Annotated[int, Meta(description="a port, 1..65535, that nobody else on this host listens on", ge=1, le=65535)]
_Texts = tuple[Annotated[str, Meta(description="a text")], ...]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class NodeTable(Table, frozen=True, kw_only=True):
    """[node]: who this agent is, and how it finds others."""

    name: Annotated[str, Meta(description="this agent's name, one in its data center, such as 'a1'")]
    datacenter: Annotated[str, Meta(description="its data center's name, such as 'fra'")]
    tags: Annotated[_Texts, Meta(description="a list of texts, seen by all members")] = ()
    # Keys, registrations, what was known: kept over restarts, on a local disk, by this agent alone.
    state_dir: Annotated[str, Meta(description="a directory")] = "/var/lib/dislocate"
    bind: Annotated[str, Meta(description="an IP address to listen on")] = "0.0.0.0"
    # Default: `bind` when it names one address, else the one that this host sends from by default.
    advertise: Annotated[str, Meta(description="the IP address that others reach this agent at")] = ""
    advertise_wan: Annotated[str, Meta(description="the same for other data centers, behind NAT")] = ""
    # Any two or three agents, of any data center, as 'host:gossip_port'; names are looked up each time.
    seeds: Annotated[_Texts, Meta(description="a list of 'host:gossip_port'")] = ()


class StoreTable(Table, frozen=True, kw_only=True):
    """[store]: the same on every agent of the fleet."""

    servers: Annotated[_Texts, Meta(description="a list of 'datacenter/name'; who is named is a server")] = ()


class SecurityTable(Table, frozen=True, kw_only=True):
    """[security]: who may join, and who may ask for what."""

    secret_file: Annotated[str, Meta(description="a file made by `umask 077; dislocate keys generate > FILE`")] = ""
    loopback: Annotated[str, Meta(description="the role of whoever connects from this host")] = "write"
    tokens_file: Annotated[str, Meta(description="a TOML file of [[token]] tables")] = ""

    @property
    def loopback_role(self) -> Role:
        return role_named(self.loopback, "security.loopback")


class PortsTable(Table, frozen=True, kw_only=True):
    """[ports]: all four on `node.bind`; gossip is UDP, DNS both, the others TCP."""

    http: _Port = 49700
    gossip: _Port = 49701
    links: _Port = 49702
    dns: _Port = 49703


class ServiceTable(Table, frozen=True, kw_only=True):
    """[[service]]: an instance on this host.  The fields mean what they mean in PUT /api/instances/ID."""

    name: Annotated[str, Meta(description="lower-case labels joined by dots, such as 'db.orders.replica'")]
    port: Annotated[int, Meta(description="a port, 1..65535", ge=1, le=65535)]
    id: Annotated[str, Meta(description="an id that no other instance of this agent has")] = ""  # default: the name
    address: Annotated[str, Meta(description="a host without a port; empty: what the agent advertises")] = ""
    tags: Annotated[_Texts, Meta(description="a list of texts")] = ()
    meta: Annotated[dict[str, str], Meta(description="a table of texts")] = {}
    weight: Annotated[int, Meta(description="a whole number, 0..65535, relative to the other instances")] = 1
    check: CheckBody | None = None


class Config(Table, frozen=True, kw_only=True):
    """The whole file, checked."""

    node: NodeTable
    store: StoreTable = StoreTable()
    security: SecurityTable = SecurityTable()
    ports: PortsTable = PortsTable()
    service: tuple[ServiceTable, ...] = ()

    @property
    def path(self) -> Path:
        return f"{self.node.datacenter}/{self.node.name}"

    @property
    def instances(self) -> tuple[InstanceSpec, ...]:
        """What the [[service]] tables ask to register.  Raises `LocalError`, but not after `load_config`."""
        return tuple(_instance(table, f"service[{at}]") for at, table in enumerate(self.service))


def load_config(path: FilePath) -> Config:
    """The configuration in the file at `path`.  Raises `ConfigError`; then nothing was changed."""
    try:
        config = checked(read_toml(path, Config, "--config"))
    except ConfigError:
        raise
    except LocalError as error:
        raise ConfigError(error.field, got=error.got, expected=error.expected) from error
    return _rooted(config, path.absolute().parent)


def parse_config(text: str) -> Config:
    """The configuration that `text` spells.  Raises `LocalError`."""
    return checked(parse_toml(text, Config))


def checked(config: Config) -> Config:
    """`config` itself when all of it can be meant.  Raises `LocalError`."""
    _check_node(config.node)
    _check_ports(config.ports)
    for at, server in enumerate(config.store.servers):
        split_path(server, f"store.servers[{at}]")
    _check_security(config.security)
    _check_services(config)
    return config


def _check_node(node: NodeTable) -> None:
    check_label(node.name, "node.name")
    check_label(node.datacenter, "node.datacenter")
    _check_ip(node.bind, "node.bind", "an IP address of this host, or 0.0.0.0 for all")
    for field in ("advertise", "advertise_wan"):
        address = getattr(node, field)
        if address:
            _check_ip(address, f"node.{field}", "an IP address that other agents reach")
            if ip_address(address).is_unspecified:
                raise ConfigError(f"node.{field}", got=address, expected="one address that other agents reach")
    for at, seed in enumerate(node.seeds):
        split_address(seed, f"node.seeds[{at}]")
    if not node.state_dir:
        raise ConfigError("node.state_dir", got="", expected="a directory of this agent's own")


def _check_ip(text: str, field: str, expected: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise ConfigError(field, got=text, expected=expected) from None


def _check_ports(ports: PortsTable) -> None:
    """The TCP ports differ; gossip and DNS share UDP."""
    taken = Counter((ports.http, ports.links, ports.dns))
    if ports.gossip == ports.dns:
        taken[ports.dns] += 1
    twice = [port for port, times in taken.items() if times > 1]
    if twice:
        raise ConfigError("ports", got=twice[0], expected="a port of its own for each of http, gossip, links and dns")


def _check_security(security: SecurityTable) -> None:
    role_named(security.loopback, "security.loopback")
    if not security.secret_file:
        raise ConfigError(
            "security.secret_file",
            got="nothing",
            expected="a file made by `umask 077; dislocate keys generate > FILE`, the same on every host",
        )


def _check_services(config: Config) -> None:
    try:
        check_instances(config.instances)
    except LocalError as error:
        # The catalog calls it by the field of the API.
        field = re.sub(r"^(service\[\d+\])\.service$", r"\1.name", error.field)
        raise ConfigError(field, got=error.got, expected=error.expected) from error


def _instance(table: ServiceTable, field: str) -> InstanceSpec:
    fields: dict[str, Any] = {
        name: getattr(table, name) for name in ("port", "address", "tags", "meta", "weight", "check")
    }
    try:
        check_service_name(table.name, "name")  # before the id, which is the name where none is given
        return instance_spec(table.id or table.name, InstanceBody(service=table.name, **fields))
    except LocalError as error:
        raise ConfigError(f"{field}.{error.field}", got=error.got, expected=error.expected) from error


def _rooted(config: Config, directory: FilePath) -> Config:
    """`config` with absolute paths."""

    def rooted(text: str) -> str:
        return str(directory / text) if text else ""

    security = msgspec.structs.replace(
        config.security,
        secret_file=rooted(config.security.secret_file),
        tokens_file=rooted(config.security.tokens_file),
    )
    node = msgspec.structs.replace(config.node, state_dir=rooted(config.node.state_dir))
    return msgspec.structs.replace(config, node=node, security=security)
