"""Templates: Jinja2 in its sandbox, with `facts` of this host, `key('config/color')` and `secret('db/password')`.

Decides what a text means on this host, and, for whoever starts a run, which keys and secrets it names.  Undefined names are
errors.  A name is a literal, so that `references` knows it without rendering and keys can be read once, at one revision, for
all nodes.  What is rendered is bounded in size.  A template that is plain does each of its steps once, so it is bounded in
time and memory too; any other one is for `rendering`, since nothing here could end it.

Reads no file, has no includes; what a secret is worth is the caller's affair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches

from dislocate.core.boundary.spec import Command, File, Process, References, Resource, RunSpec
from dislocate.host.render_error import RENDERED, RenderError, too_large

_MARKS = ("{{", "{%", "{#", "\r")  # the last one: Jinja2 ends all lines alike
_FUNCTIONS = ("key", "secret")


def render(
    text: str,
    field: str,
    *,
    facts: Mapping[str, object],
    values: Mapping[str, str],
    secret: Callable[[str], str],
) -> str:
    """`text` of `field` with everything filled in.  Raises `RenderError` with place and mend."""

    def key(name: str) -> str:
        if name not in values:
            raise RenderError(f"the key {name!r} is not there; set it with `dislocate kv put {name} VALUE`")
        return values[name]

    names = {"facts": facts, "key": key, "secret": secret}
    return fill(text, field, names, lambda message: _nearest(message, facts))


def fill(text: str, field: str, names: Mapping[str, object], mend: Callable[[str], str]) -> str:
    """`text` of `field` with `names` filled in.  Raises `RenderError` with place and, for a name that is not there, the mend,
    which `mend` makes of Jinja2's words."""
    if not _is_literal(text):
        from dislocate.host import jinja

        return jinja.fill(text, field, names, mend)
    if len(text) > RENDERED:
        raise RenderError(f"{field}: {too_large()}")
    return text


def is_plain(text: str) -> bool:
    """Whether rendering it ends soon, and takes no more memory than what it names; also of one that cannot be read at all."""
    if _is_literal(text):
        return True
    from dislocate.host import jinja

    return jinja.is_plain(text)


def references(spec: RunSpec) -> References:
    """The keys and secrets that its templates name.  Raises `LocalError` for a template that cannot be read, and for a name
    that is no literal."""
    found = [references_of(resource, f"resources[{position}].") for position, resource in enumerate(spec.resources)]
    return References(
        keys=tuple(sorted({key for each in found for key in each.keys})),
        secrets=tuple(sorted({secret for each in found for secret in each.secrets})),
    )


def references_of(resource: Resource, prefix: str = "") -> References:
    """The same of one resource, whose fields are named from `prefix` on."""
    return _references(pair for name, text in _templates(resource) for pair in _named(text, prefix + name))


def named_in(text: str, field: str) -> References:
    """The same of one template."""
    return _references(_named(text, field))


def _references(pairs: Iterable[tuple[str, str]]) -> References:
    named = tuple(pairs)
    return References(
        keys=tuple(sorted({name for function, name in named if function == "key"})),
        secrets=tuple(sorted({name for function, name in named if function == "secret"})),
    )


def _templates(resource: Resource) -> Iterator[tuple[str, str]]:
    """What of a resource is a template, by field."""
    match resource:
        case File(content=content):
            yield "content", content
        case Command(environment=environment) | Process(environment=environment):
            for name, text in environment.items():
                yield f"environment.{name}", text


def _named(text: str, field: str) -> Iterator[tuple[str, str]]:
    """Each `key(...)` and `secret(...)` in `text`: which of them, and the name.  Raises `LocalError`."""
    if not _is_literal(text):
        from dislocate.host import jinja

        yield from jinja.named(text, field)


def _is_literal(text: str) -> bool:
    """Whether there is nothing to fill in: it is what it says."""
    return not any(mark in text for mark in _MARKS)


def _nearest(message: str, facts: Mapping[str, object]) -> str:
    """The mend of a name that is misspelt, or of a fact that stands alone."""
    wanted = message.rsplit("'", 2)[1] if message.count("'") >= 2 else ""
    stands_alone = message.endswith("is undefined")
    names = {name: f"facts.{name}" if stands_alone else name for name in facts}
    if stands_alone:
        names |= {name: name for name in ("facts", *_FUNCTIONS)}
    near = get_close_matches(wanted, names, 1)
    return f"; did you mean {names[near[0]]!r}?" if near else f"; facts are {', '.join(sorted(facts))}"
