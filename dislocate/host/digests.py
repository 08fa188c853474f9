"""Digests: how a resource is, in a word that two nodes, a plan and a journal can compare."""

from hashlib import blake2b

ABSENT = "absent"  # in place of a digest


def digest_of(*parts: str | bytes, key: bytes = b"") -> str:
    """Hex; each part with its length, so that no two sequences run into one.  It goes to the store: what may hold a secret is
    digested with a `key`, or guesses could be tried on it there."""
    digest = blake2b(digest_size=16, key=key)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
