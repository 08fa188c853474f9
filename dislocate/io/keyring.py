"""Keys: the secret that a cluster shares, datagrams sealed with it, and the key pair that a node's links are known by.

A sealed datagram is `version key_id salt counter ciphertext tag`: AES-256-GCM under HKDF-SHA256(secret, salt), where the
salt is 16 random bytes of the sending process and the nonce is its counter, so no (key, nonce) pair is ever used twice.
All that stands before the ciphertext is authenticated with it.

Invariant: whatever `Keyring.open` returns was sealed by a holder of the secret, not by this process, and is returned
once (per salt, within a window of `REPLAY_WINDOW`).  All else is counted by reason and gives None; a forged salt leaves
nothing behind.  What it does not do: a process that starts anew has forgotten its windows, so a datagram from before may
be replayed to it once; boots and incarnations outdate what such a datagram says.
"""

import base64
import binascii
import logging
import os
import stat
from collections import OrderedDict
from enum import Enum
from hashlib import blake2b
from pathlib import Path as FilePath

import zmq
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct
from zmq.utils import z85

from dislocate.core.errors import ConfigError
from dislocate.core.tunables import DATAGRAM_BUDGET

SECRET_SIZE = 32  # bytes: AES-256's strength
FORMAT = 1  # of sealed datagrams
SALT_SIZE = 16
COUNTER_SIZE = 8
TAG_SIZE = 16
HEADER_SIZE = 2 + SALT_SIZE + COUNTER_SIZE
OVERHEAD = HEADER_SIZE + TAG_SIZE  # 42 bytes
DATAGRAM_LIMIT = 1_232  # bytes sealed: IPv6's minimum MTU of 1,280 less its header (40) and UDP's (8)
REPLAY_WINDOW = (
    1_024  # datagrams: as far as one may be overtaken by others of its sender; WireGuard uses 2,000, IPsec 64
)
SALT_LIMIT = 8_192  # senders remembered, least recently heard forgotten first: several starts of a thousand nodes

assert DATAGRAM_BUDGET + OVERHEAD <= DATAGRAM_LIMIT

log = logging.getLogger(__name__)


class Rejection(Enum):
    """Why a datagram was dropped unread."""

    TRUNCATED = "truncated"
    OVERSIZED = "oversized"
    UNKNOWN_FORMAT = "unknown format"
    UNKNOWN_KEY = "unknown key"  # no secret here has its key id: another cluster, or a rotation that missed this host
    NOT_AUTHENTIC = "not authentic"  # forged or altered, or sealed with another secret of the same id
    REPLAYED = "replayed"
    REFLECTED = "reflected"  # our own, come back


# ---- the cluster secret


def generate_secret() -> str:
    """What `dislocate keys generate` prints: base64 of 32 random bytes."""
    return base64.b64encode(os.urandom(SECRET_SIZE)).decode()


def read_secrets(path: FilePath, field: str = "security.secret_file") -> tuple[bytes, ...]:
    """The secrets in `path`, one a line, the first to seal with and all to open with; '#' begins a comment.

    Raises `ConfigError` naming `field`; warns when others on the host may read the file.  Never shows a secret."""
    mend = f"a file made by `umask 077; dislocate keys generate > {path}`, the same on every host"
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(field, got=f"{path}, which does not exist", expected=mend) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(field, got=f"{path}, which cannot be read: {error}", expected=mend) from error
    secrets = tuple(
        _secret(line.strip(), f"{field}, line {number}", mend)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )
    if not secrets:
        raise ConfigError(field, got=f"{path}, which holds no secret", expected=mend)
    _warn_if_open(path, mode)
    return secrets


def _secret(line: str, field: str, mend: str) -> bytes:
    try:
        secret = base64.b64decode(line, validate=True)
    except binascii.Error:
        raise ConfigError(field, got="text that is not base64", expected=mend) from None
    if len(secret) != SECRET_SIZE:
        raise ConfigError(field, got=f"{len(secret)} bytes", expected=f"{SECRET_SIZE} bytes in base64: {mend}")
    return secret


def _warn_if_open(path: FilePath, mode: int) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("%s may be read by others on this host; mend it with: chmod 600 %s", path, path)


def derive_key(secret: bytes, purpose: str) -> bytes:
    """32 bytes for digests; they tell nothing of the secret, nor of those for another purpose."""
    return blake2b(f"dislocate {purpose}".encode(), key=secret, digest_size=32).digest()


def key_id(secret: bytes) -> int:
    """One byte that names a secret in clear and tells nothing of use about it."""
    return fingerprint(secret)[0]


def fingerprint(secret: bytes) -> bytes:
    """Four bytes for people who compare hosts; the first is the key id.  A secret has 256 random bits, so they give
    nothing away."""
    digest = Hash(SHA256())
    digest.update(b"dislocate key id" + secret)
    return digest.finalize()[:4]


# ---- datagrams


class ReplayWindow:
    """Which counters of one sender were seen: the highest, and a bitmap of the `REPLAY_WINDOW` below it (RFC 6479)."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = 0
        self._seen = 0  # bit i: highest - i

    def is_fresh(self, counter: int) -> bool:
        behind = self._highest - counter
        return behind < 0 or (behind < REPLAY_WINDOW and not self._seen >> behind & 1)

    def mark(self, counter: int) -> None:
        """Remember a fresh counter."""
        ahead = counter - self._highest
        if ahead > 0:
            kept = self._seen << ahead if ahead < REPLAY_WINDOW else 0
            self._seen = (kept | 1) & _WINDOW_MASK
            self._highest = counter
        else:
            self._seen |= 1 << -ahead


_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1


class Sender:
    """One authenticated salt: its key, ready to use, and what it sent."""

    __slots__ = ("cipher", "window")

    def __init__(self, cipher: AESGCM) -> None:
        self.cipher = cipher
        self.window = ReplayWindow()


class Keyring:
    """Seals and opens datagrams with the cluster's secrets.  One a process: its salt must never be used twice."""

    def __init__(self, secrets: tuple[bytes, ...], field: str = "security.secret_file") -> None:
        self.rejected: dict[Rejection, int] = dict.fromkeys(Rejection, 0)
        self._secrets = {key_id(secret): secret for secret in secrets}
        if len(self._secrets) != len(secrets):
            raise ConfigError(
                field,
                got="two secrets with one key id",
                expected="secrets that differ in their id: generate the newest of them again",
            )
        self._salt = os.urandom(SALT_SIZE)
        self._prefix = bytes((FORMAT, key_id(secrets[0]))) + self._salt
        self._cipher = _derive(secrets[0], self._salt)
        self._counter = 0
        self._senders: OrderedDict[bytes, Sender] = OrderedDict()  # by key id and salt

    @property
    def strangers(self) -> int:
        """Datagrams dropped until now that another secret had sealed, or nobody's."""
        return self.rejected[Rejection.UNKNOWN_KEY] + self.rejected[Rejection.NOT_AUTHENTIC]

    def seal(self, plain: bytes) -> bytes:
        """`plain` (at most `DATAGRAM_BUDGET` bytes) as it travels: `OVERHEAD` bytes longer."""
        self._counter += 1
        header = self._prefix + self._counter.to_bytes(COUNTER_SIZE, "big")
        return header + self._cipher.encrypt(_nonce(header), plain, header)

    def open(self, sealed: bytes) -> bytes | None:
        """What was sealed, or None, counted in `rejected`."""
        plain = self._open(sealed)
        if isinstance(plain, Rejection):
            self.rejected[plain] += 1
            return None
        return plain

    def _open(self, sealed: bytes) -> bytes | Rejection:
        if len(sealed) < OVERHEAD:
            return Rejection.TRUNCATED
        if len(sealed) > DATAGRAM_LIMIT:
            return Rejection.OVERSIZED
        header = sealed[:HEADER_SIZE]
        if header[0] != FORMAT:
            return Rejection.UNKNOWN_FORMAT
        secret = self._secrets.get(header[1])
        if secret is None:
            return Rejection.UNKNOWN_KEY
        origin, salt = header[1 : 2 + SALT_SIZE], header[2 : 2 + SALT_SIZE]
        if salt == self._salt:
            return Rejection.REFLECTED
        counter = int.from_bytes(header[-COUNTER_SIZE:], "big")
        sender = self._senders.get(origin) or Sender(_derive(secret, salt))
        if not sender.window.is_fresh(counter):
            return Rejection.REPLAYED
        try:
            plain = sender.cipher.decrypt(_nonce(header), sealed[HEADER_SIZE:], header)
        except InvalidTag:
            return Rejection.NOT_AUTHENTIC
        sender.window.mark(counter)
        self._remember(origin, sender)
        return plain

    def _remember(self, origin: bytes, sender: Sender) -> None:
        """Only after authentication: a forged salt must not push out a good one."""
        self._senders[origin] = sender
        self._senders.move_to_end(origin)
        if len(self._senders) > SALT_LIMIT:
            self._senders.popitem(last=False)


def _nonce(header: bytes) -> bytes:
    return bytes(4) + header[-COUNTER_SIZE:]


def _derive(secret: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), length=32, salt=salt, info=b"dislocate datagram 1").derive(secret))


# ---- the node's own key pair


class NodeKeys(Struct, frozen=True):
    """A CURVE25519 key pair, 32 raw bytes each."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"NodeKeys(public={self.public.hex()})"


def load_node_keys(state_dir: FilePath) -> NodeKeys:
    """The node's key pair from `state_dir`/node.key, made there at the first start, readable by its owner only.

    Raises `ConfigError`; a file that cannot be used is left as it is."""
    path = state_dir / "node.key"
    try:
        if not path.exists():
            _create_private(path, zmq.curve_keypair()[1] + b"\n")
        text = path.read_bytes().strip()
        _warn_if_open(path, path.stat().st_mode)
        public = zmq.curve_public(text) if len(text) == 40 else b""
        return NodeKeys(public=_raw(public), secret=_raw(text))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "node.state_dir",
            got=f"{path}: {error}",
            expected="a key that this agent can read and write; restore it, or move it away to be given a new one",
        ) from error


def _raw(key: bytes) -> bytes:
    raw = bytes(z85.decode(key))
    if len(raw) != 32:
        raise ValueError("not a CURVE key of 40 characters")
    return raw


def _create_private(path: FilePath, data: bytes) -> None:
    """Whole and durable, or not there at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
