"""What a core module may not do, read off its syntax tree; and a world in which doing it raises.

Sets are looked for on the tree because a digest would not show them: a set of numbers iterates in the same order in
every process, until the numbers become names.
"""

import ast
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWED_MODULES = {
    "abc",
    "bisect",
    "collections",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "dislocate",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "msgspec",
    "operator",
    "random",
    "re",
    "struct",
    "types",
    "typing",
}
EXACT_MATH = {"ceil", "floor", "frexp", "ldexp", "sqrt", "inf", "isfinite", "isnan", "isqrt"}

# What learns the order of a set.  `min` and `sorted` with a key leave ties in it.
ORDERED = {"list", "tuple", "iter", "enumerate", "map", "filter", "zip", "next", "reversed", "dict"}
KEYED = {"sorted", "min", "max"}
ORDERED_METHODS = {"join", "extend", "fromkeys"}


def violations(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, what) of everything in `tree` that a core module may not do."""
    finder = _Finder(tree)
    finder.visit(tree)
    return finder.found


class _Finder(ast.NodeVisitor):
    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[int, str]] = []
        self._sets: set[str] = set()
        while True:  # until no name is found that is bound to one already found
            found = {name for node in ast.walk(tree) for name in self._names_bound_to_sets(node)}
            if found <= self._sets:
                break
            self._sets |= found

    def _say(self, node: ast.AST, what: str) -> None:
        self.found.append((getattr(node, "lineno", 0), what))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._module(node, alias.name, None)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._module(node, node.module or "", alias.name)

    def _module(self, node: ast.AST, module: str, name: str | None) -> None:
        top = module.partition(".")[0]
        if top not in ALLOWED_MODULES:
            self._say(node, f"imports {top}")
        elif top == "random" and name != "Random":
            self._say(node, "imports random, not only its class Random")
        elif top == "math" and name not in EXACT_MATH:
            self._say(node, "imports math, not only what IEEE 754 rounds exactly")

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Name):
            if function.id in ("hash", "id"):
                self._say(node, f"calls {function.id}()")
            has_key = any(keyword.arg == "key" for keyword in node.keywords)
            learns = function.id in ORDERED or (function.id in KEYED and has_key)
            if learns and any(self._is_set(argument) for argument in node.args):
                self._say(node, "iterates a set")
        if isinstance(function, ast.Attribute):
            takes_order = function.attr in ORDERED_METHODS and any(self._is_set(argument) for argument in node.args)
            if takes_order or (function.attr == "pop" and not node.args and self._is_set(function.value)):
                self._say(node, "iterates a set")
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._iterated(node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        """From set to set no order is learned."""
        for generator in node.generators:
            for condition in generator.ifs:
                self.visit(condition)
        self.visit(node.elt)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._iterated(node.value)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(target, ast.Tuple | ast.List) for target in node.targets):
            self._iterated(node.value)
        self.generic_visit(node)

    def _iterated(self, node: ast.expr) -> None:
        if self._is_set(node):
            self._say(node, "iterates a set")

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in self._sets:
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Attribute(attr="copy", value=value)):
                return self._is_set(value)
            case ast.Call(func=ast.Attribute(attr="union" | "intersection" | "difference" | "symmetric_difference")):
                return True
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), left=left, right=right):
                return any(self._is_set(side) or _is_view(side) for side in (left, right))
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return name in self._sets
        return False

    def _names_bound_to_sets(self, node: ast.AST) -> Iterator[str]:
        """Names, attributes and functions that `node` annotates, assigns or returns as a set anywhere in the module.

        Deliberately coarse: a name that means a set in one function means one everywhere in the file."""
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if _is_set_annotation(annotation):
                yield from _name(target)
            case ast.arg(arg=name, annotation=annotation) if annotation is not None and _is_set_annotation(annotation):
                yield name
            case ast.FunctionDef(name=name, returns=returns) if returns is not None and _is_set_annotation(returns):
                yield name
            case ast.Assign(targets=targets, value=value) if self._is_set(value):
                for target in targets:
                    yield from _name(target)


def _is_view(node: ast.expr) -> bool:
    """A view of a dict keeps its order; what operators make of two is a set."""
    match node:
        case ast.Call(func=ast.Attribute(attr="keys" | "items"), args=[], keywords=[]):
            return True
    return False


def _is_set_annotation(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return text.partition("[")[0] in ("set", "frozenset")
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return _is_set_annotation(inner)
        case ast.Subscript(value=value):
            return _is_set_annotation(value)
        case ast.Name(id=name):
            return name in ("set", "frozenset", "Set", "AbstractSet", "MutableSet")
        case ast.BinOp(left=left, right=right):
            return _is_set_annotation(left) or _is_set_annotation(right)
    return False


def _name(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name


POISONED = {
    time: ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
    os: ("urandom", "getpid", "getenv"),
    random: ("random", "randint", "randrange", "choice", "shuffle", "sample", "getrandbits", "uniform", "seed"),
    uuid: ("uuid1", "uuid4"),
    socket: ("socket", "gethostname", "getaddrinfo", "create_connection"),
    threading: ("Thread", "get_ident"),
}


@contextmanager
def poison() -> Iterator[None]:
    """While this lasts, every clock, source of chance and door to the outside raises."""
    saved = [(module, name, getattr(module, name)) for module, names in POISONED.items() for name in names]
    for module, name, _ in saved:
        setattr(module, name, _raiser(f"{module.__name__}.{name}"))
    try:
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)


def _raiser(what: str):
    def touched(*_args: object, **_kwargs: object) -> None:
        raise AssertionError(f"the core touched {what}")

    return touched
