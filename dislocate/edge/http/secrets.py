"""Secrets: values that the nodes they are sealed to can read, and nobody else, this agent after its answer included.

A template names one as `secret('db/password')`.  What is stored is sealed to the key of each node; a node that comes later
has to be sealed to by putting the value again, since nobody has it any more.
"""

import re
from hashlib import blake2b
from http import HTTPStatus

import msgspec

from dislocate.core.boundary.runs import Secret
from dislocate.core.boundary.store import Compare, Delete, Field, Put, ReadKeys, Relation, Transact
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.nearest import nearest
from dislocate.core.runs import records
from dislocate.core.tunables import SECRET_BYTES, VALUE_BYTES
from dislocate.core.words import names
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.edge.http.problems import Rejected, not_found, problem
from dislocate.edge.http.run_reads import read_all
from dislocate.edge.keys import bytes_of
from dislocate.edge.run_answers import SecretAnswer, SecretsAnswer
from dislocate.edge.run_bodies import SecretBody
from dislocate.edge.run_targets import targets_of
from dislocate.edge.store_answers import DeletedAnswer

ROUTE = "/api/secrets/"
TRIES = 3  # of two operators who put the same secret at once, the second one is the next version

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9])?", re.ASCII)


def put_secret(call: Call) -> SecretAnswer:
    name, body = _name(call), call.body
    value = bytes_of(body.value, body.encoding)
    if not 0 < len(value) <= SECRET_BYTES:
        raise LocalError("value", got=f"{len(value)} bytes", expected=f"1 to {SECRET_BYTES} bytes")
    sealed = _sealed(call, value, targets_of(call.node, body.targets, body.confirm))
    digest = blake2b(msgspec.json.encode(sealed), digest_size=16).hexdigest()
    for _ in range(TRIES):
        version, revision = _present(call, name)
        secret = Secret(version=version + 1, sealed=sealed, digest=digest)
        data = records.encode(secret)
        if len(data) > VALUE_BYTES:
            expected = f"fewer than {len(sealed)} nodes, or a shorter value: {VALUE_BYTES} bytes fit in the store"
            raise LocalError("targets", got=body.targets, expected=expected)
        key = records.secret_key(name)
        compare = Compare(key, Field.MODIFIED, Relation.EQUAL, revision)
        if call.ask_store(Transact((compare,), (Put(key, data),))).succeeded:
            return _answer(name, secret)
    detail = f"Somebody else puts {name!r} at the same time"
    raise Rejected(problem(HTTPStatus.CONFLICT, detail, field="name", got=name, hint="Put it again"))


def list_secrets(call: Call) -> SecretsAnswer:
    found = read_all(call, records.SECRETS)
    return SecretsAnswer(
        tuple(_answer(each.key.removeprefix(records.SECRETS), records.decode(each.value, Secret)) for each in found)
    )


def delete_secret(call: Call) -> DeletedAnswer:
    """Runs under way that name it keep what they have; one that starts later is refused."""
    name = _name(call)
    if not _present(call, name)[1]:
        known = [each.key.removeprefix(records.SECRETS) for each in read_all(call, records.SECRETS)]
        hint = f"GET /api/secrets shows all{nearest(name, known)}"
        raise not_found("name", name, f"There is no secret {name!r}", hint)
    done = call.ask_store(Transact((), (Delete(records.secret_key(name)),)))
    return DeletedAnswer(revision=done.revision, deleted=len(done.results[0]))


def _name(call: Call) -> str:
    name = call.rest_of_path(ROUTE)
    if not _NAME.fullmatch(name):
        expected = "1 to 200 of A-Z a-z 0-9 '.' '_' '-' '/', such as 'db/password'"
        raise LocalError("name", got=name[:100], expected=expected)
    return name


def _present(call: Call, name: str) -> tuple[int, int]:
    """Version and revision; 0 and 0: there is none."""
    found = call.ask_store(ReadKeys(records.secret_key(name))).keys
    return (records.decode(found[0].value, Secret).version, found[0].modified) if found else (0, 0)


def _sealed(call: Call, value: bytes, targets: tuple[Path, ...]) -> dict[Path, bytes]:
    seal, members = call.agent.seal, call.node.members
    if seal is None:
        raise Rejected(problem(HTTPStatus.NOT_IMPLEMENTED, "This agent cannot seal secrets"))
    sealed: dict[Path, bytes] = {}
    keyless = []
    for path in targets:
        try:
            sealed[path] = seal(value, members[path].public_key)
        except ValueError:
            keyless.append(path)
    if keyless:
        expected = f"nodes whose public key is known, which that of {names(keyless)} is not"
        raise LocalError("targets", got=", ".join(keyless), expected=expected)
    return sealed


def _answer(name: str, secret: Secret) -> SecretAnswer:
    return SecretAnswer(name, secret.version, secret.digest, tuple(sorted(secret.sealed)))


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/secrets",
        role=Role.OPERATE,
        summary="Names and versions of all secrets, and which nodes can read them",
        respond=list_secrets,
        answer=SecretsAnswer,
    ),
    Operation(
        method="PUT",
        path="/api/secrets/{name:path}",
        role=Role.OPERATE,
        summary="Seal a value to the nodes of a target: they can read it, and nobody else",
        respond=put_secret,
        answer=SecretAnswer,
        body=SecretBody,
    ),
    Operation(
        method="DELETE",
        path="/api/secrets/{name:path}",
        role=Role.OPERATE,
        summary="Forget a secret",
        respond=delete_secret,
        answer=DeletedAnswer,
    ),
)
