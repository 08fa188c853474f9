"""Who may ask for what: the role of a connection, and whether a browser was lured into sending a request.

Roles are ordered, read < register < write < operate.  A connection from loopback has the configured role; one on the unix
socket from the agent's own user, or root, has `operate`; any other shows a token.  A token never takes rights away.

A name that is not ours in `Host` means DNS rebinding, so only IP literals, 'localhost' and our own names pass; an
`Origin` that is not this very server means that some other site's page is asking.  Both are refused for every path.
"""

import hashlib
import os
import pwd
import socket
import tomllib
from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from dislocate.core.errors import ConfigError
from dislocate.edge.http.problems import Rejected, problem
from dislocate.strict import one_of

PEER_UID = "dislocate.peer_uid"  # in the WSGI environment of a connection on the unix socket; set by `server`


class Role(IntEnum):
    """What one may do; each includes those before it."""

    READ = 1  # look
    REGISTER = 2  # add, remove and report for instances of this host
    WRITE = 3  # drain, maintain, forget, leave; change keys of the store
    OPERATE = (
        4  # have commands run; change keys under 'system/' and 'records/', runs, secrets and the servers of the store
    )

    @property
    def label(self) -> str:
        return self.name.lower()


class Token(Struct, frozen=True):
    """Whoever shows the secret with this hash has `role`."""

    name: str
    role: Role


class Access(Struct, frozen=True, kw_only=True):
    """The rules of one agent."""

    loopback: Role = Role.WRITE
    tokens: dict[str, Token] = {}  # by the SHA-256 of the secret, in hex
    names: tuple[str, ...] = ()  # host names, in lower case, under which browsers may ask this agent
    uid: int = os.getuid()

    def role_of(self, environ: Mapping[str, Any]) -> Role | None:
        """The role of a request; None: it must show a token.  Raises `Rejected` for a token that is not known."""
        by_place = self._role_by_place(environ)
        header = environ.get("HTTP_AUTHORIZATION", "")
        if not header:
            return by_place
        token = self._token(environ)
        if token is None:
            detail = "The token in 'Authorization' is not one of this agent's"
            raise _unauthorized(detail, "'Authorization: Bearer SECRET' with a token of security.tokens_file")
        return max(by_place or token.role, token.role)

    def name_of(self, environ: Mapping[str, Any], here: str) -> str:
        """Who asks the agent `here`, for records: 'alice' by her token, else 'alice@dc/name' as the kernel knows the user at
        the other end of the unix socket; empty where nobody can tell.  What a caller says of itself counts for nothing."""
        token = self._token(environ)
        if token is not None:
            return token.name
        uid = environ.get(PEER_UID)
        return "" if uid is None else f"{_user(uid)}@{here}"

    def require(self, role: Role | None, needed: Role, what: str) -> None:
        """Raises `Rejected` unless `role` suffices; says which is needed and how to get it."""
        if role is not None and role >= needed:
            return
        mend = (
            f"a token with the role '{needed.label}' or higher in 'Authorization: Bearer SECRET' "
            "(security.tokens_file), or the agent's own user on its http.sock"
        )
        if role is None:
            raise _unauthorized(f"{what} needs the role '{needed.label}'; this connection is not from this host", mend)
        detail = f"{what} needs the role '{needed.label}'; this connection has '{role.label}'"
        raise Rejected(problem(HTTPStatus.FORBIDDEN, detail, field="Authorization", expected=mend))

    def check_browser(self, environ: Mapping[str, Any]) -> None:
        """Raises `Rejected` for a foreign `Host` or `Origin`."""
        if PEER_UID in environ:
            return  # no browser speaks to a unix socket
        host = environ.get("HTTP_HOST", "")
        if host and not self._is_ours(_host_name(host)):
            expected = "an IP address, 'localhost' or a name of this agent"
            raise Rejected(
                problem(
                    HTTPStatus.FORBIDDEN, f"Host: expected {expected}", field="Host", got=host[:100], expected=expected
                )
            )
        origin = environ.get("HTTP_ORIGIN", "")
        # Following a link from elsewhere is fine: that page cannot read the answer, and a form it posts has an Origin.
        lured = environ.get("HTTP_SEC_FETCH_SITE", "") in ("cross-site", "same-site")
        lured = lured and environ.get("HTTP_SEC_FETCH_MODE", "") != "navigate"
        if lured or (origin and _netloc(origin) != host.lower()):
            expected = "a page served by this agent, or a program that sends no Origin"
            raise Rejected(
                problem(
                    HTTPStatus.FORBIDDEN,
                    "Pages of other sites may not ask this agent",
                    field="Origin",
                    got=origin[:100],
                    expected=expected,
                )
            )

    def _token(self, environ: Mapping[str, Any]) -> Token | None:
        scheme, _, secret = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self.tokens.get(hashlib.sha256(secret.strip().encode("latin-1", "replace")).hexdigest())

    def _role_by_place(self, environ: Mapping[str, Any]) -> Role | None:
        uid = environ.get(PEER_UID)
        if uid is not None:
            return Role.OPERATE if uid in (self.uid, 0) else self.loopback
        address = environ.get("REMOTE_ADDR", "")  # the kernel's word: '127.' can begin no name here
        is_loopback = address == "::1" or address.removeprefix("::ffff:").startswith("127.")
        return self.loopback if is_loopback else None

    def _is_ours(self, name: str) -> bool:
        return name == "localhost" or name in self.names or _is_ip(name)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _netloc(origin: str) -> str:
    """'host:port' of an Origin; empty for 'null' and nonsense."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def load_tokens(path: str) -> dict[str, Token]:
    """Reads security.tokens_file: [[token]] with `name`, `role` and `sha256`, the hex hash of the secret, so that whoever
    reads the file cannot use it.  Raises `ConfigError`."""
    try:
        document = tomllib.loads(FilePath(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("security.tokens_file", got=path, expected=f"a readable TOML file ({error})") from error
    entries = document.get("token", [])
    unknown = sorted(set(document) - {"token"})
    if unknown or not isinstance(entries, list):
        raise ConfigError("security.tokens_file", got=unknown or entries, expected="only [[token]] tables in it")
    return dict(_token(entry, f"tokens_file: token[{number}]") for number, entry in enumerate(entries))


def role_named(text: object, field: str) -> Role:
    """The role of that name.  Raises `ConfigError`."""
    roles = {role.label: role for role in Role}
    if not isinstance(text, str) or text not in roles:
        raise ConfigError(field, got=text, expected=one_of(str(text), roles))
    return roles[text]


def _token(entry: object, field: str) -> tuple[str, Token]:
    fields = {"name", "role", "sha256"}
    if not isinstance(entry, dict) or set(entry) != fields:
        got = sorted(entry) if isinstance(entry, dict) else entry
        raise ConfigError(field, got=got, expected="exactly name, role and sha256")
    digest = entry["sha256"]
    if not isinstance(digest, str) or len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
        raise ConfigError(f"{field}.sha256", got="(hidden)", expected="64 hex digits: printf %s SECRET | sha256sum")
    return digest.lower(), Token(name=str(entry["name"]), role=role_named(entry["role"], f"{field}.role"))


def _is_ip(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, ValueError):
            continue
        return True
    return False


def _unauthorized(detail: str, expected: str) -> Rejected:
    headers = {"WWW-Authenticate": 'Bearer realm="dislocate"'}
    return Rejected(problem(HTTPStatus.UNAUTHORIZED, detail, field="Authorization", expected=expected), headers)
