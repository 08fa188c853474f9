"""Templates: Jinja2 in its sandbox, with `facts` of this host, `key('config/color')` and `secret('db/password')`.

Decides what a text means on this host, and, for whoever starts a run, which keys and secrets it names.  Undefined names are
errors (StrictUndefined).  A name is a literal, so that `references` knows it without rendering and keys can be read once, at
one revision, for all nodes.  What is rendered is bounded in size.  A template that is plain does each of its steps once, so it
is bounded in time and memory too; any other one is for `rendering`, since nothing here could end it.

Reads no file, has no includes; what a secret is worth is the caller's affair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.sandbox import SandboxedEnvironment

from dislocate.core.boundary.spec import Command, File, Process, References, Resource, RunSpec
from dislocate.core.errors import DislocateError, LocalError

RENDERED = 1024 * 1024  # characters: four times what a key of the store may hold
_FUNCTIONS = ("key", "secret")

# What does each of its steps once and makes nothing larger: no loops, variables, calls of anything else, operators.
_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
)
_PLAIN_FILTERS = ("default", "d")
_PLAIN_TESTS = ("defined", "undefined")


class RenderError(DislocateError):
    """A template cannot be rendered.  Nothing was changed."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        return self.words


def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, cache_size=0)


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
    try:
        template = _environment().from_string(text)
        return _joined(template.generate(names))
    except TemplateSyntaxError as error:
        raise RenderError(f"{field}, line {error.lineno}: {error.message}") from None
    except UndefinedError as error:
        raise RenderError(f"{field}{_line(error)}: {error.message}{mend(str(error.message))}") from None
    except RenderError as error:
        raise RenderError(f"{field}{_line(error)}: {error.words}") from None
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise RenderError(f"{field}{_line(error)}: {error or type(error).__name__}") from None
    except (RecursionError, MemoryError, SyntaxError):  # the last one of Python, which has limits of its own
        raise RenderError(f"{field}: it is nested too deep, or too large") from None


def is_plain(text: str) -> bool:
    """Whether rendering it ends soon, and takes no more memory than what it names; also of one that cannot be read at all."""
    try:
        return all(_is_plain(node) for node in _environment().parse(text).find_all(nodes.Node))
    except TemplateSyntaxError:
        return True
    except (RecursionError, ValueError):
        return False


def _is_plain(node: nodes.Node) -> bool:
    match node:
        case nodes.Call(node=nodes.Name(name=name)):
            return name in _FUNCTIONS
        case nodes.Filter(name=name):
            return name in _PLAIN_FILTERS
        case nodes.Test(name=name):
            return name in _PLAIN_TESTS
    return isinstance(node, _PLAIN)


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
    """Each `key(...)` and `secret(...)` in `text`: which of them, and the name."""
    try:
        tree = _environment().parse(text)
        calls, names = list(tree.find_all(nodes.Call)), list(tree.find_all(nodes.Name))
    except TemplateSyntaxError as error:
        raise LocalError(f"{field}, line {error.lineno}", got=error.message, expected="a Jinja2 template") from None
    except (RecursionError, ValueError) as error:  # too many brackets, or digits
        raise LocalError(field, got=str(error), expected="a Jinja2 template that is nested less deep") from None
    called = set()
    for call in calls:
        if not (isinstance(call.node, nodes.Name) and call.node.name in _FUNCTIONS):
            continue
        called.add(id(call.node))
        function, place = call.node.name, f"{field}, line {call.lineno}"
        argument = call.args[0] if len(call.args) == 1 else None
        is_literal = isinstance(argument, nodes.Const) and isinstance(argument.value, str) and argument.value
        if call.kwargs or call.dyn_args or call.dyn_kwargs or not is_literal:
            raise LocalError(
                place,
                got=f"{function}(...) with a name that is computed",
                expected=f"a name in quotes, such as {function}('config/color'): it is read once, before the run begins",
            )
        yield function, argument.value
    for name in names:
        if name.name in _FUNCTIONS and id(name) not in called:
            raise LocalError(
                f"{field}, line {name.lineno}",
                got=f"{name.name!r} used as a variable",
                expected=f"another name for it: {name.name} is the function that reads a {name.name}",
            )


def _joined(pieces: Iterator[str]) -> str:
    kept: list[str] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size > RENDERED:
            raise RenderError(f"it becomes larger than {RENDERED // 1024} KiB")
    return "".join(kept)


def _line(error: BaseException) -> str:
    """Where in the template it happened; Jinja2 rewrites the traceback so that its lines are the template's."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = step.tb_lineno
        step = step.tb_next
    return f", line {line}" if line else ""


def _nearest(message: str, facts: Mapping[str, object]) -> str:
    """The mend of a name that is misspelt, or of a fact that stands alone."""
    wanted = message.rsplit("'", 2)[1] if message.count("'") >= 2 else ""
    stands_alone = message.endswith("is undefined")
    names = {name: f"facts.{name}" if stands_alone else name for name in facts}
    if stands_alone:
        names |= {name: name for name in ("facts", *_FUNCTIONS)}
    near = get_close_matches(wanted, names, 1)
    return f"; did you mean {names[near[0]]!r}?" if near else f"; facts are {', '.join(sorted(facts))}"
