"""Logarithm and exponential against the platform's, and exact where exactness is promised."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.numeric import exp, ln, log10


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_ln_agrees_with_the_platform(x):
    assert ln(x) == pytest.approx(math.log(x), rel=1e-13, abs=1e-14)


@given(st.floats(min_value=-600, max_value=600))
def test_exp_agrees_with_the_platform(x):
    assert exp(x) == pytest.approx(math.exp(x), rel=1e-13)


@given(st.integers(min_value=0, max_value=15))
def test_log10_of_powers_of_ten_is_close_to_whole(power):
    assert log10(10.0**power) == pytest.approx(power, abs=1e-14)


@pytest.mark.parametrize("x", [0.0, -1.0, float("nan")])
def test_ln_refuses_what_has_no_logarithm(x):
    with pytest.raises(ValueError, match="ln of"):
        ln(x)


def test_these_bits_are_the_same_on_every_machine():
    """Golden values: a change here breaks every recording."""
    assert [ln(20.0).hex(), log10(60.0).hex(), exp(-2.5).hex()] == [
        "0x1.7f7427b73e391p+1",
        "0x1.c734eb9bbd3ffp+0",
        "0x1.50385c094f425p-4",
    ]
