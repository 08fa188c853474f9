"""The servers of the store: who they are, adding, removing, handing over; and the store as a whole: backup and restore."""

from collections.abc import Iterable

from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.store import (
    AddServer,
    BackUp,
    RemoveServer,
    Restore,
    StoreRequest,
    TransferLeadership,
)
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path, check_label, split_path
from dislocate.core.nearest import nearest
from dislocate.core.tunables import RESTORE_BYTES, RESTORE_PACE
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.bodies import TransferBody
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import BYTES, Call, Operation, Query
from dislocate.edge.http.kv import REVISION
from dislocate.edge.http.problems import not_found
from dislocate.edge.store_answers import RevisionAnswer, ServersAnswer, StoreAnswer, servers_answer, store_answer

CHANGE_WITHIN = 120.0  # seconds: a new server first takes over the whole store
BACKUP_WITHIN = 120.0  # seconds: each slice of it may wait for an election


def restore_within(size: int) -> float:
    """Seconds: longer than the core takes, which knows whether anything was restored and says so."""
    return CHANGE_WITHIN + size / RESTORE_PACE


def get_store(call: Call) -> StoreAnswer:
    return store_answer(call.node.store, call.now)


def list_servers(call: Call) -> ServersAnswer:
    return servers_answer(call.node.store, call.now)


def put_server(call: Call) -> DoneAnswer:
    """Answered when it votes; a known name with a new disk is replaced in one step."""
    path = _path(call)
    _must_be_known(path, call.node.members, "member", "GET /api/members lists all")
    return _done(call, AddServer(path))


def delete_server(call: Call) -> DoneAnswer:
    path = _path(call)
    _must_be_server(call, path)
    return _done(call, RemoveServer(path))


def post_transfer(call: Call) -> DoneAnswer:
    path = call.body.to
    if path:
        split_path(path, "to")
        _must_be_server(call, path)
    return _done(call, TransferLeadership(path))


def get_backup(call: Call) -> bytes:
    """The whole store in one file, for `POST /api/store/restore`."""
    backup = call.ask_store(BackUp(), BACKUP_WITHIN)
    call.set_header(REVISION, str(backup.revision))
    data: bytes = backup.data
    return data


def post_restore(call: Call) -> RevisionAnswer:
    """All keys and leases become those of the backup, in one revision above all."""
    if not call.body:
        raise LocalError("body", got="nothing", expected="a backup, as GET /api/store/backup gave it")
    restored = call.ask_store(Restore(call.body, call.query_flag("force")), restore_within(len(call.body)))
    return RevisionAnswer(revision=restored.revision)


def _done(call: Call, request: StoreRequest) -> DoneAnswer:
    result = call.ask_store(request, CHANGE_WITHIN)
    return DoneAnswer(version=result.version if isinstance(result, Done) else 0)


def _path(call: Call) -> Path:
    return f"{check_label(call.path['datacenter'], 'datacenter')}/{check_label(call.path['name'], 'name')}"


def _must_be_server(call: Call, path: Path) -> None:
    """Only where the servers are known: else the store judges."""
    servers = [server.path for server in call.node.store.servers]
    if servers:
        _must_be_known(path, servers, "server", "GET /api/servers lists all")


def _must_be_known(path: Path, known: Iterable[Path], what: str, hint: str) -> None:
    paths = list(known)
    if path not in paths:
        raise not_found("name", path, f"No {what} {path!r} is known here", hint + nearest(path, paths))


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/store",
        role=Role.READ,
        summary="Where this agent stands towards the replicated store, and why it cannot be written to, if so",
        respond=get_store,
        answer=StoreAnswer,
    ),
    Operation(
        method="GET",
        path="/api/servers",
        role=Role.READ,
        summary="The servers of the store",
        respond=list_servers,
        answer=ServersAnswer,
    ),
    Operation(
        method="PUT",
        path="/api/servers/{datacenter}/{name}",
        role=Role.OPERATE,
        summary="Make an agent a server, or replace one whose disk is new; answered when it votes",
        respond=put_server,
        answer=DoneAnswer,
    ),
    Operation(
        method="DELETE",
        path="/api/servers/{datacenter}/{name}",
        role=Role.OPERATE,
        summary="Make a server an agent like others; answered when it votes no more",
        respond=delete_server,
        answer=DoneAnswer,
    ),
    Operation(
        method="POST",
        path="/api/servers/transfer",
        role=Role.OPERATE,
        summary="Let another server lead; answered when it does",
        respond=post_transfer,
        answer=DoneAnswer,
        body=TransferBody,
    ),
    Operation(
        method="GET",
        path="/api/store/backup",
        role=Role.WRITE,
        summary="All keys and leases in one file",
        respond=get_backup,
        media=BYTES,
    ),
    Operation(
        method="POST",
        path="/api/store/restore",
        role=Role.OPERATE,
        summary="Replace all keys and leases by those of a backup; force=true takes one of another group",
        respond=post_restore,
        answer=RevisionAnswer,
        raw_limit=RESTORE_BYTES,
        queries=(Query("force", "true: even if it is of another group"),),
    ),
)
