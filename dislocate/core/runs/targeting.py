"""Targeting: which nodes an expression means.

    dc:fra & service:shop.web & !tag:canary & (name:a1 | name:a2) & 25%@seed
    id in {fra/a1, wdc/a2}      tag:role=web      dc:f* | name:*1      *

`&` binds closer than `|`; `!` closer still; `*` in a value stands for any characters.  A part of the nodes is taken of what
the other terms beside it select, whatever their order: rendezvous hashing of (seed, path), so that who is in stays in when
nodes come or go, when the part grows, and wherever it is computed; `!25%@seed` is exactly the others.

Invariant: pure, so the same candidates give the same nodes everywhere; a run computes it once and keeps the result.
Source: GitHub's and Salt's compound matchers for the terms, rendezvous hashing (Thaler and Ravishankar, 1998) for the parts.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.nearest import nearest

LONGEST = 8 * 1024  # characters: a list of some 500 nodes
DEEPEST = 32  # parentheses and negations around a term
GOT = 120  # characters of an expression that an error repeats


class Candidate(Struct, frozen=True):
    """A node that may be meant, and what expressions may say of it."""

    path: Path
    datacenter: str
    name: str
    tags: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # that have an instance on it


def candidates(tags: Mapping[Path, tuple[str, ...]], placed: Iterable[tuple[str, Path]]) -> tuple[Candidate, ...]:
    """Nodes with their tags, by path, and `placed` on them: each service with the nodes of its instances."""
    services: dict[Path, dict[str, None]] = {}
    for service, path in placed:
        services.setdefault(path, {})[service] = None
    found = []
    for path in sorted(tags):
        datacenter, _, name = path.partition("/")
        found.append(Candidate(path, datacenter, name, tags[path], tuple(services.get(path, ()))))
    return tuple(found)


FACTS: dict[str, Callable[[Candidate], tuple[str, ...]]] = {
    "dc": lambda candidate: (candidate.datacenter,),
    "id": lambda candidate: (candidate.path,),
    "name": lambda candidate: (candidate.name,),
    "service": lambda candidate: candidate.services,
    "tag": lambda candidate: candidate.tags,
}
ALIASES = {"datacenter": "dc", "node": "id", "path": "id", "services": "service", "tags": "tag"}  # only to be named


# ---- what an expression is made of


class Everybody(Struct, frozen=True):
    """'*'"""


class Claim(Struct, frozen=True):
    """Some value of this fact is as written."""

    fact: str
    value: str
    position: int


class Share(Struct, frozen=True):
    """A part of what the terms beside it select."""

    percent: int
    seed: str


class Not(Struct, frozen=True):
    term: "Term"


class All(Struct, frozen=True):
    terms: tuple["Term", ...]


class Some(Struct, frozen=True):
    terms: tuple["Term", ...]


Term: TypeAlias = Everybody | Claim | Share | Not | All | Some


class Target(Struct, frozen=True):
    """A parsed expression."""

    text: str
    term: Term

    def select(self, candidates: Iterable[Candidate]) -> tuple[Path, ...]:
        """The nodes that it means, by path; each once."""
        by_path = {candidate.path: candidate for candidate in candidates}
        return _select(self.term, tuple(by_path[path] for path in sorted(by_path)))

    def strangers(self, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """In words, each value that is written out and fits no candidate at all, with the nearest that does."""
        words = []
        for claim in _claims(self.term):
            known = sorted({value for candidate in candidates for value in FACTS[claim.fact](candidate)})
            if "*" not in claim.value and claim.value not in known:
                words.append(f"{claim.fact}:{claim.value} fits no node{nearest(claim.value, known)}")
        return tuple(words)

    def unknown_nodes(self, candidates: Iterable[Candidate]) -> tuple[Path, ...]:
        """Nodes that it names by their path and nobody knows: leaving them out in silence would be wrong."""
        paths = [candidate.path for candidate in candidates]
        named = [claim.value for claim in _claims(self.term) if claim.fact == "id" and "*" not in claim.value]
        return tuple(path for path in dict.fromkeys(named) if path not in paths)


# ---- who is meant


def _select(term: Term, pool: tuple[Candidate, ...]) -> tuple[Path, ...]:
    """Paths of `pool`, in its order."""
    match term:
        case Everybody():
            return tuple(candidate.path for candidate in pool)
        case Claim():
            fits, values = _pattern(term.value), FACTS[term.fact]
            return tuple(candidate.path for candidate in pool if any(map(fits, values(candidate))))
        case Share():
            return _share(term, pool)
        case Not():
            return tuple(candidate.path for candidate in _less(pool, _select(term.term, pool)))
        case Some():
            chosen = dict.fromkeys(path for each in term.terms for path in _select(each, pool))
            return tuple(candidate.path for candidate in pool if candidate.path in chosen)
        case All():
            for each in [each for each in term.terms if not _has_share(each)]:
                pool = _only(pool, _select(each, pool))
            rest = pool
            for each in [each for each in term.terms if _has_share(each)]:
                rest = _only(rest, _select(each, pool))
            return tuple(candidate.path for candidate in rest)


def _share(term: Share, pool: tuple[Candidate, ...]) -> tuple[Path, ...]:
    count = -(-len(pool) * term.percent // 100)
    ranked = sorted(pool, key=lambda candidate: (_weight(term.seed, candidate.path), candidate.path))
    chosen = {candidate.path for candidate in ranked[:count]}
    return tuple(candidate.path for candidate in pool if candidate.path in chosen)


def _weight(seed: str, path: Path) -> bytes:
    return blake2b(path.encode(), key=blake2b(seed.encode(), digest_size=32).digest(), digest_size=16).digest()


def _only(pool: tuple[Candidate, ...], paths: tuple[Path, ...]) -> tuple[Candidate, ...]:
    chosen = dict.fromkeys(paths)
    return tuple(candidate for candidate in pool if candidate.path in chosen)


def _less(pool: tuple[Candidate, ...], paths: tuple[Path, ...]) -> tuple[Candidate, ...]:
    left_out = dict.fromkeys(paths)
    return tuple(candidate for candidate in pool if candidate.path not in left_out)


def _has_share(term: Term) -> bool:
    match term:
        case Share():
            return True
        case Not():
            return _has_share(term.term)
        case All() | Some():
            return any(map(_has_share, term.terms))
    return False


def _claims(term: Term) -> tuple[Claim, ...]:
    match term:
        case Claim():
            return (term,)
        case Not():
            return _claims(term.term)
        case All() | Some():
            return tuple(claim for each in term.terms for claim in _claims(each))
    return ()


def _pattern(value: str) -> Callable[[str], object]:
    """What says whether a text is as `value`."""
    if "*" not in value:
        return value.__eq__
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", value))), re.DOTALL).fullmatch


# ---- reading


def parse_target(text: str, field: str = "targets") -> Target:
    """`text` as a target.  Raises `LocalError` naming the position and, for an unknown fact, the nearest known one."""
    return Target(text, _Reader(text, field).read())


_TOKEN = re.compile(r'(?P<space>\s+)|(?P<sign>[&|!(){},])|(?P<word>(?:"[^"]*"|[^\s&|!(){},"])+)')
_SHARE = re.compile(r"(?P<percent>\d{1,3})%(?:@(?P<seed>.*))?", re.ASCII | re.DOTALL)


class _Token(Struct, frozen=True):
    text: str  # '' at the end
    position: int
    is_sign: bool


class _Reader:
    """Recursive descent: some := all ('|' all)*; all := term ('&' term)*."""

    def __init__(self, text: str, field: str) -> None:
        self._text = text
        self._field = field
        if len(text) > LONGEST:
            raise self._mistake(f"at most {LONGEST} characters: give the nodes a tag and name that", LONGEST)
        self._tokens = self._cut()
        self._at = 0

    def read(self) -> Term:
        if not self._text.strip():
            raise self._mistake("an expression such as 'dc:fra & service:shop.web', or '*' for all nodes", 0)
        term = self._some(0)
        if (token := self._next()).text:
            raise self._mistake(f"'&', '|' or the end before {token.text!r}", token.position)
        return term

    def _some(self, depth: int) -> Term:
        terms = [self._all(depth)]
        while self._takes("|"):
            terms.append(self._all(depth))
        return terms[0] if len(terms) == 1 else Some(tuple(terms))

    def _all(self, depth: int) -> Term:
        terms = [self._term(depth)]
        while self._takes("&"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def _term(self, depth: int) -> Term:
        token = self._next()
        if depth > DEEPEST:
            raise self._mistake(f"at most {DEEPEST} parentheses within each other", token.position)
        self._at += 1
        if token.is_sign and token.text == "!":
            return Not(self._term(depth + 1))
        if token.is_sign and token.text == "(":
            term = self._some(depth + 1)
            self._demand(")", token)
            return term
        if token.is_sign or not token.text:
            what = repr(token.text) if token.text else "the end"
            raise self._mistake(f"a term such as 'dc:fra' or '*' before {what}", token.position)
        return self._word(token)

    def _word(self, token: _Token) -> Term:
        if token.text == "*":
            return Everybody()
        if token.text == "id" and self._next().text == "in":
            return self._list()
        if share := _SHARE.fullmatch(token.text):
            if int(share["percent"]) > 100:
                raise self._mistake("a part of 0% to 100%", token.position)
            return Share(int(share["percent"]), _bare(share["seed"] or ""))
        fact, colon, value = token.text.partition(":")
        if not colon:
            raise self._mistake(_without_fact(token.text), token.position)
        if fact not in FACTS:
            meant = f", did you mean {ALIASES[fact]!r}?" if fact in ALIASES else nearest(fact, FACTS)
            raise self._mistake(f"one of {', '.join(FACTS)}, not {fact!r}{meant}", token.position)
        if not _bare(value):
            raise self._mistake(f"a value right after '{fact}:'", token.position)
        return Claim(fact, _bare(value), token.position)

    def _list(self) -> Term:
        """'in {fra/a1, wdc/a2}'"""
        self._at += 1
        opening = self._next()
        self._demand("{", opening)
        claims: list[Term] = []
        while True:
            token = self._next()
            if token.is_sign or "/" not in token.text:
                raise self._mistake("a node as 'dc/name'", token.position)
            claims.append(Claim("id", _bare(token.text), token.position))
            self._at += 1
            if not self._takes(","):
                self._demand("}", opening)
                return claims[0] if len(claims) == 1 else Some(tuple(claims))

    # ---- tokens

    def _cut(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self._text):
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self._mistake("a second '\"' that ends the text", at)
            if not found["space"]:
                tokens.append(_Token(found[0], at, found["sign"] is not None))
            at = found.end()
        return tokens

    def _next(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _Token("", len(self._text), False)

    def _takes(self, sign: str) -> bool:
        token = self._next()
        is_it = token.is_sign and token.text == sign
        self._at += is_it
        return is_it

    def _demand(self, sign: str, opening: _Token) -> None:
        if not self._takes(sign):
            of = "" if opening.text == sign or sign == "{" else f" for the {opening.text!r} at {opening.position + 1}"
            raise self._mistake(f"{sign!r}{of}", self._next().position)

    def _mistake(self, expected: str, position: int) -> LocalError:
        return LocalError(self._field, got=self._text[:GOT], expected=f"at character {position + 1}: {expected}")


def _bare(text: str) -> str:
    return text.replace('"', "")


def _without_fact(text: str) -> str:
    """The mend for a word that says nothing of a fact."""
    if "/" in text:
        return f"'id:{text}' for one node"
    if "=" in text and text.partition("=")[0] in FACTS:
        return f"'{text.replace('=', ':', 1)}'"
    if "=" in text:
        return f"'tag:{text}'"
    return f"a fact and its value, such as 'name:{text}' or 'dc:{text}'"
