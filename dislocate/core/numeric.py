"""Logarithm and exponential that agree on every machine.

`math.log` and `math.exp` come from the platform's libm and may differ in the last bit; a replay on another machine would
then take another path.  These use only operations that IEEE 754 rounds exactly (+ - * / sqrt, scaling by powers of two)
in a fixed order, over tables built by the same operations at import.

Accuracy: relative error below 1e-13 over the range that the core uses.
"""

from math import frexp, ldexp

_STEPS = 128
LN2 = 0.6931471805599453
LN10 = 2.302585092994046


def _series_ln(x: float) -> float:
    """ln(x) for x in [1, 2] by the atanh series: 2 * (z + z^3/3 + z^5/5 ...), z = (x-1)/(x+1) <= 1/3."""
    z = (x - 1.0) / (x + 1.0)
    square, power, total = z * z, z, 0.0
    for odd in range(1, 41, 2):
        total += power / odd
        power *= square
    return 2.0 * total


def _series_exp(x: float) -> float:
    """exp(x) for |x| <= ln(2)/2 by the power series."""
    term, total = 1.0, 1.0
    for n in range(1, 20):
        term *= x / n
        total += term
    return total


_LN_TABLE = tuple(_series_ln(1.0 + i / _STEPS) for i in range(_STEPS + 1))


def ln(x: float) -> float:
    """Natural logarithm of x > 0.  Raises ValueError otherwise."""
    if not x > 0.0:
        raise ValueError(f"ln of {x!r}")
    mantissa, exponent = frexp(x)
    mantissa, exponent = mantissa * 2.0, exponent - 1
    step = int((mantissa - 1.0) * _STEPS)
    return exponent * LN2 + _LN_TABLE[step] + _series_ln_near_one(mantissa / (1.0 + step / _STEPS))


def _series_ln_near_one(x: float) -> float:
    z = (x - 1.0) / (x + 1.0)
    square = z * z
    return 2.0 * z * (1.0 + square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0))))


def log10(x: float) -> float:
    """Decimal logarithm of x > 0."""
    return ln(x) / LN10


def exp(x: float) -> float:
    """e to the power x; 0.0 below -700, `inf` never: raises OverflowError above 700."""
    if x > 700.0:
        raise OverflowError(f"exp of {x!r}")
    if x < -700.0:
        return 0.0
    doublings = round(x / LN2)
    return ldexp(_series_exp(x - doublings * LN2), doublings)
