"""Formulas of terms as text: read them, and evaluate them in any arithmetic.

A formula is a Python-and-SymPy-readable expression over the inputs and earlier terms of a bound.
It is evaluated here by walking its syntax tree, never by `eval`; the arithmetic is whatever
number type and function table the caller brings.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Arithmetic:
    """A number system: how to read a literal, raise to a power, and compute each named function."""

    number: Callable[[str], Any]
    power: Callable[[Any, Any], Any]
    functions: Mapping[str, Callable[..., Any]]
    constants: Mapping[str, Callable[[], Any]]


def evaluate(formula: str, names: Mapping[str, Any], arithmetic: Arithmetic) -> Any:
    """Value of `formula` with `names` bound; ValueError on anything that is not a formula."""
    return _evaluate(_parse(formula), names, arithmetic)


@lru_cache(maxsize=4096)
def _parse(formula: str) -> ast.expr:
    return ast.parse(formula, mode="eval").body


def _evaluate(node: ast.expr, names: Mapping[str, Any], on: Arithmetic) -> Any:
    match node:
        case ast.Constant(value=True):
            return True
        case ast.Constant(value=int() | float()):
            return on.number(repr(node.value))
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name) if name in on.constants:
            return on.constants[name]()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, names, on)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return on.power(_evaluate(left, names, on), _evaluate(right, names, on))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(left, names, on), _evaluate(right, names, on))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return _COMPARISONS[type(op)](_evaluate(left, names, on), _evaluate(right, names, on))
        case ast.Call(func=ast.Name(id="Piecewise"), args=pieces):
            return _first_piece(pieces, names, on)
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in on.functions:
            return on.functions[name](*(_evaluate(a, names, on) for a in arguments))
    raise ValueError(f"cannot read {ast.unparse(node)!r} in a formula")


def _first_piece(pieces: list[ast.expr], names: Mapping[str, Any], on: Arithmetic) -> Any:
    for piece in pieces:
        assert isinstance(piece, ast.Tuple)
        value, condition = piece.elts
        if _evaluate(condition, names, on):
            return _evaluate(value, names, on)
    raise ValueError("no piece of a Piecewise formula applies")
