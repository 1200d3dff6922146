"""Validation that names the argument, its value and what is allowed.

Every check takes keyword arguments, accepts scalars or arrays, and returns nothing: a value that
passes is used as it is.
"""

from __future__ import annotations

import numpy as np

LARGEST_COUNT = 2**53
"""Counts up to here are exact in double precision."""


def numeric(**named: object) -> None:
    """Finite real numbers (or arrays of them); no strings, booleans, NaN or infinities."""
    for name, value in named.items():
        _finite(name, value, "a finite real number")


def positive(**named: object) -> None:
    """Finite numbers above zero."""
    for name, value in named.items():
        allowed = "a finite number > 0"
        if np.any(_finite(name, value, allowed) <= 0):
            raise _error(name, value, allowed)


def nonnegative(**named: object) -> None:
    """Finite numbers of at least zero."""
    for name, value in named.items():
        allowed = "a finite number >= 0"
        if np.any(_finite(name, value, allowed) < 0):
            raise _error(name, value, allowed)


def count(**named: object) -> None:
    """Whole numbers from 1 to 2**53."""
    for name, value in named.items():
        allowed = f"a whole number from 1 to 2**53 = {LARGEST_COUNT}"
        array = _finite(name, value, allowed)
        if np.any((array < 1) | (array > LARGEST_COUNT) | (array != np.floor(array))):
            raise _error(name, value, allowed)


def probability(**named: object) -> None:
    """Numbers strictly between 0 and 1."""
    for name, value in named.items():
        allowed = "a number strictly between 0 and 1"
        array = _finite(name, value, allowed)
        if np.any((array <= 0) | (array >= 1)):
            raise _error(name, value, allowed)


def fraction(**named: object) -> None:
    """Numbers from 0 to 1, both included."""
    for name, value in named.items():
        allowed = "a number from 0 to 1"
        array = _finite(name, value, allowed)
        if np.any((array < 0) | (array > 1)):
            raise _error(name, value, allowed)


def ordered(**named: object) -> None:
    """Values that do not decrease in the order they are given."""
    numeric(**named)
    names, values = list(named), list(named.values())
    for i in range(len(values) - 1):
        if np.any(np.greater(values[i], values[i + 1])):
            raise ValueError(
                f"{names[i]} must be at most {names[i + 1]}, "
                f"got {names[i]}={values[i]!r} and {names[i + 1]}={values[i + 1]!r}"
            )


def one_of(allowed: tuple[str, ...], **named: object) -> None:
    """One of the listed words."""
    for name, value in named.items():
        if value not in allowed:
            raise _error(name, value, "one of " + ", ".join(map(repr, allowed)))


def _finite(name: str, value: object, allowed: str) -> np.ndarray:
    if isinstance(value, bool | str | bytes):
        raise _error(name, value, allowed)
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # Python integers beyond 64 bits arrive as objects
            array = array.astype(float)
    except (TypeError, ValueError, OverflowError):
        raise _error(name, value, allowed) from None
    if array.dtype.kind not in "iuf" or array.size == 0 or not np.all(np.isfinite(array)):
        raise _error(name, value, allowed)
    return array


def _error(name: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"{name} must be {allowed}, got {value!r}")
