"""Sealing: a value that only one node can read, for a store that everybody reads.

A sealed value is `version ephemeral_public ciphertext tag`: X25519 between a key made for this value and the node's CURVE key
(the same curve, see `io.keyring`), HKDF-SHA256 over both public keys, AES-256-GCM; the key serves once, so the nonce is zero.

Invariant: who has only the public key can seal and cannot open, not even what it sealed itself.  Does not say who sealed it.
Source: the shape of libsodium's sealed boxes and of HPKE's base mode (RFC 9180), with what `cryptography` has.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT = 1
KEY_SIZE = 32
TAG_SIZE = 16
OVERHEAD = 1 + KEY_SIZE + TAG_SIZE  # bytes that a sealed value is longer
_NONCE = bytes(12)


def seal(value: bytes, public_key: bytes) -> bytes:
    """`value` for the holder of the secret key of `public_key` (32 bytes).  Raises ValueError for what is no such key."""
    once = X25519PrivateKey.generate()
    ephemeral = once.public_key().public_bytes_raw()
    shared = once.exchange(X25519PublicKey.from_public_bytes(public_key))
    header = bytes((FORMAT,)) + ephemeral
    return header + _cipher(shared, ephemeral, public_key).encrypt(_NONCE, value, header)


def open_sealed(sealed: bytes, secret_key: bytes) -> bytes:
    """What was sealed to this key.  Raises ValueError for anything else."""
    if len(sealed) < OVERHEAD or sealed[0] != FORMAT:
        raise ValueError("no sealed value")
    own = X25519PrivateKey.from_private_bytes(secret_key)
    header, ephemeral = sealed[: 1 + KEY_SIZE], sealed[1 : 1 + KEY_SIZE]
    shared = own.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    try:
        cipher = _cipher(shared, ephemeral, own.public_key().public_bytes_raw())
        return cipher.decrypt(_NONCE, sealed[1 + KEY_SIZE :], header)
    except InvalidTag:
        raise ValueError("sealed to another key, or altered") from None


def _cipher(shared: bytes, ephemeral: bytes, public_key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), length=32, salt=ephemeral + public_key, info=b"dislocate seal 1").derive(shared))
