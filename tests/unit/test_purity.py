"""The core decides and does nothing else: what it may import, what it may call, what it may iterate."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.purity import ALLOWED_MODULES, violations

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "dislocate" / "core").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_core_module_is_pure(path):
    assert violations(ast.parse(path.read_text())) == []


def test_the_core_has_modules_to_look_at():
    assert len(CORE) > 15


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import time", "imports time"),
        ("import os.path", "imports os"),
        ("from socket import socket", "imports socket"),
        ("import logging", "imports logging"),
        ("import random", "imports random, not only its class Random"),
        ("from random import randint", "imports random, not only its class Random"),
        ("def f():\n    import uuid", "imports uuid"),
        ("def f(x):\n    return hash(x)", "calls hash()"),
        ("def f(x):\n    return id(x)", "calls id()"),
        ("import math\ny = math.exp(2)", "imports math, not only what IEEE 754 rounds exactly"),
        ("from math import log", "imports math, not only what IEEE 754 rounds exactly"),
        ("for x in {1, 2}:\n    pass", "iterates a set"),
        ("def f(a: list):\n    s = set(a)\n    return [x for x in s]", "iterates a set"),
        ("def f(a: set[int]):\n    for x in a:\n        pass", "iterates a set"),
        ("def f(a: frozenset[int]):\n    return list(a)", "iterates a set"),
        (
            "class A:\n    def __init__(self):\n        self.s = set()\n    def f(self):\n        return tuple(self.s)",
            "iterates a set",
        ),
        ("class A:\n    s: set[str]\n    def f(self):\n        return ','.join(self.s)", "iterates a set"),
        ("def f(a, b):\n    return [*(set(a) | set(b))]", "iterates a set"),
        ("def f(a, b):\n    return [x for x in a.keys() & b.keys()]", "iterates a set"),
        ("def f(a, b):\n    s = a.items() - b\n    return list(s)", "iterates a set"),
        ("def f(a):\n    s = set(a)\n    return s.pop()", "iterates a set"),
        ("def f(a):\n    x, y = {1, 2}", "iterates a set"),
        ("def f(a):\n    s = set(a)\n    yield from s", "iterates a set"),
        ("def f(a):\n    s = set(a)\n    t = s\n    for x in t:\n        pass", "iterates a set"),
        ("def f(a):\n    s = set(a) | set(a)\n    for x in s:\n        pass", "iterates a set"),
        ("def g() -> set[int]: ...\ndef f():\n    for x in g():\n        pass", "iterates a set"),
        ("def f(s: 'set[int]'):\n    return list(s.copy())", "iterates a set"),
        ("def f(s: set[str]):\n    return min(s, key=len)", "iterates a set"),
    ],
)
def test_a_planted_impurity_is_found(code, says):
    assert [found for _, found in violations(ast.parse(code))] == [says]


@pytest.mark.parametrize(
    "code",
    [
        "def f(a):\n    return sorted(set(a))",
        "def f(a):\n    s = set(a)\n    return len(s), 3 in s, s == {1}, min(s), max(s)",
        "def f(a):\n    return [x for x in sorted({1, 2})]",
        "def f(a, b):\n    return list(a.keys()), sorted(a.keys() - b.keys())",
        "from random import Random",
        "from math import frexp, ldexp, sqrt, ceil",
        "for x in dict.fromkeys([1, 2]):\n    pass",
    ],
)
def test_what_is_pure_passes(code):
    assert violations(ast.parse(code)) == []


def test_the_core_runs_with_every_clock_and_source_of_chance_poisoned():
    """Two nodes greet, ping and register in a process where touching the outside raises."""
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        from tests.support.purity import poison
        from tests.support import conversation
        with poison():
            print(conversation.two_nodes(seed="7", turns=200))
    """)
    result = subprocess.run(
        [sys.executable, "-c", script, str(ROOT)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip()) == 32


def test_the_poison_works():
    script = textwrap.dedent("""
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from tests.support.purity import poison
        with poison():
            time.monotonic_ns()
    """)
    result = subprocess.run(
        [sys.executable, "-c", script, str(ROOT)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode != 0
    assert "the core touched time.monotonic_ns" in result.stderr


def test_the_allowed_modules_are_all_of_the_standard_library_or_msgspec():
    assert {name.partition(".")[0] for name in ALLOWED_MODULES} <= set(sys.stdlib_module_names) | {
        "msgspec",
        "dislocate",
    }
