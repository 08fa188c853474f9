"""Jinja2 in its sandbox: texts that have something to fill in.  For `templates`, which imports this when the first one comes:
2 MiB that an agent does not need whose texts are all as they are.

Undefined names are errors (StrictUndefined).
"""

from collections.abc import Callable, Iterator, Mapping

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.sandbox import SandboxedEnvironment

from dislocate.core.errors import LocalError
from dislocate.host.render_error import RENDERED, RenderError, too_large

FUNCTIONS = ("key", "secret")

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


def _environment() -> SandboxedEnvironment:
    return SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, cache_size=0)


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
            return name in FUNCTIONS
        case nodes.Filter(name=name):
            return name in _PLAIN_FILTERS
        case nodes.Test(name=name):
            return name in _PLAIN_TESTS
    return isinstance(node, _PLAIN)


def named(text: str, field: str) -> Iterator[tuple[str, str]]:
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
        if not (isinstance(call.node, nodes.Name) and call.node.name in FUNCTIONS):
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
        if name.name in FUNCTIONS and id(name) not in called:
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
            raise too_large()
    return "".join(kept)


def _line(error: BaseException) -> str:
    """Where in the template it happened; Jinja2 rewrites the traceback so that its lines are the template's."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = step.tb_lineno
        step = step.tb_next
    return f", line {line}" if line else ""
