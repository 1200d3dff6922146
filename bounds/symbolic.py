r"""The step sums as SymPy expressions, and their limits.

The closed forms on which the bounds rest, in exact arithmetic: for proofs of limits and for LaTeX.
They are the textbook forms, removable singularities included; numbers come from `bounds.stability`.

Symbols: `rate` $=\lambda$ per step, `T` steps, `Y` elapsed time, `D` and `D_min` steps (time),
`r` $=|s|$ a decay rate (1/time) and `s` a growth rate, all positive except `rate`, `x`, `y`.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

import sympy
from sympy import E, Expr, Rational, Symbol, exp, oo, symbols

rate, x, y = symbols("lambda x y", real=True)
T, Y, D, D_min, s, r = symbols("T Y D D_min s r", positive=True)
a = Symbol("a", real=True)
"""Rate of `J`, of either sign."""

S1 = (exp(rate * T) - 1) / (exp(rate) - 1)
r"""$\sum_{t<T} e^{\lambda t}$."""
S2 = (exp(rate) - T * exp(rate * T) + (T - 1) * exp(rate * (T + 1))) / (1 - exp(rate)) ** 2
r"""$\sum_{t<T} t e^{\lambda t}$."""
c = x / (1 - exp(-x))
"""Largest ratio of a left-endpoint sum to its integral, for steps x in units of the decay time."""
psi = (1 + (y - 1) * exp(y)) / y**2
r"""$\int_0^1 \rho\,e^{y\rho}\,d\rho$."""
J = (1 + (a * Y - 1) * exp(a * Y)) / a**2
r"""$\int_0^Y \rho\,e^{a\rho}\,d\rho = Y^2 \psi(aY)$."""

G1_GROWING = D * S1.subs(rate, s * D)
G1_DECAYING = D * S1.subs(rate, -r * D)
G2_GROWING = D**2 * S2.subs(rate, s * D)
G2_INTEGRAL = c.subs(x, r * D) * J.subs({a: -r, Y: T * D})
G2_SHORTEST_STEPS = D**2 * S2.subs(rate, -r * D_min)
I_SHORT = Y / E
r"""$I$ up to one decay time, $rY \le 1$, and for every $s \ge 0$."""
I_LONG = 1 / (E * r) + (2 / E - (1 + r * Y) * exp(-r * Y)) / r
r"""$I$ beyond one decay time."""
H_GROWING = D / E + T * D / E + s * G2_GROWING
H_DECAYING_SHORT = D / E + I_SHORT.subs(Y, T * D)
H_DECAYING_LONG = D / E + I_LONG.subs(Y, T * D)
"""The first branch of H; the second is G2 times the fastest rate."""


@dataclass(frozen=True)
class Limit:
    """`expression` tends to `value` as `variable` approaches `point` from `direction`."""

    name: str
    expression: Expr
    variable: Symbol
    point: Expr
    direction: str
    value: Expr
    meaning: str

    def computed(self) -> Expr:
        """The limit as SymPy finds it."""
        return sympy.limit(self.expression, self.variable, self.point, self.direction)

    def latex(self) -> str:
        """`lim expression = value`."""
        side = self.direction if self.point.is_finite else "+-"
        limit = sympy.Limit(self.expression, self.variable, self.point, side)
        return rf"{sympy.latex(limit)} = {sympy.latex(self.value)}"


def _limit(
    name: str, expression: Expr, variable: Symbol, point: Expr | int, value: Expr | int,
    meaning: str, direction: str = "+",
) -> Limit:  # fmt: skip
    return Limit(
        name, expression, variable, sympy.sympify(point), direction, sympy.sympify(value), meaning
    )


_saturated = D / (1 - exp(-r * D))
_decayed = exp(-r * D_min)
_flat = T * (T - 1) / 2

LIMITS: tuple[Limit, ...] = (
    _limit("S_1", S1, rate, 0, T, "no decay, from growth"),
    _limit("S_1", S1, rate, 0, T, "no decay, from decay", "-"),
    _limit("S_2", S2, rate, 0, _flat, "no decay, from growth"),
    _limit("S_2", S2, rate, 0, _flat, "no decay, from decay", "-"),
    _limit("S_2", S2, T, 1, 0, "one step remembers nothing"),
    _limit("c", c, x, 0, 1, "short steps"),
    _limit("c", c - x, x, oo, 0, "long steps", "-"),
    _limit("psi", psi, y, 0, Rational(1, 2), "no decay, from growth"),
    _limit("psi", psi, y, 0, Rational(1, 2), "no decay, from decay", "-"),
    _limit("J", J, a, 0, Y**2 / 2, "no decay, from growth"),
    _limit("J", J, a, 0, Y**2 / 2, "no decay, from decay", "-"),
    _limit("G_1", G1_GROWING, s, 0, T * D, "no decay, from growth"),
    _limit("G_1", G1_DECAYING, r, 0, T * D, "no decay, from decay"),
    _limit("G_1", G1_DECAYING, T, oo, _saturated, "memory saturates", "-"),
    _limit("G_1", _saturated - D, r, oo, 0, "only the last step is left", "-"),
    _limit("G_1", G1_DECAYING, r, oo, D, "fast decay", "-"),
    _limit("G_1", G1_GROWING / D, D, 0, T, "short steps, growth"),
    _limit("G_1", G1_DECAYING / D, D, 0, T, "short steps, decay"),
    _limit("G_1", G1_GROWING * exp(-s * D * T), T, oo, D / (exp(s * D) - 1), "growth", "-"),
    _limit("G_2", G2_GROWING, s, 0, D**2 * _flat, "no decay, from growth"),
    _limit("G_2", G2_SHORTEST_STEPS, r, 0, D**2 * _flat, "no decay, from decay"),
    _limit("G_2", G2_INTEGRAL, r, 0, (T * D) ** 2 / 2, "no decay, other branch"),
    _limit("G_2", G2_INTEGRAL, T, oo, c.subs(x, r * D) / r**2, "memory saturates", "-"),
    _limit(
        "G_2", G2_SHORTEST_STEPS, T, oo, D**2 * _decayed / (1 - _decayed) ** 2,
        "memory saturates, other branch", "-",
    ),
    _limit("G_2", G2_SHORTEST_STEPS, r, oo, 0, "fast decay", "-"),
    _limit("G_2", G2_INTEGRAL, r, oo, 0, "fast decay, other branch", "-"),
    _limit("G_2", G2_GROWING, T, 1, 0, "one step remembers nothing, growth"),
    _limit("G_2", G2_SHORTEST_STEPS, T, 1, 0, "one step remembers nothing, decay"),
    _limit("G_2", G2_GROWING / D**2, D, 0, _flat, "short steps"),
    _limit(
        "G_2", G2_GROWING * exp(-s * D * T) / T, T, oo, D**2 / (exp(s * D) - 1), "growth", "-"
    ),
    _limit("I", I_LONG, Y, 1 / r, I_SHORT.subs(Y, 1 / r), "its branches meet"),
    _limit("I", I_LONG, Y, oo, 3 / (E * r), "memory saturates", "-"),
    _limit("H", H_GROWING, s, 0, (1 + T) * D / E, "no decay, from growth"),
    _limit("H", H_DECAYING_SHORT, r, 0, (1 + T) * D / E, "no decay, from decay"),
    _limit("H", H_DECAYING_LONG, T, oo, (D + 3 / r) / E, "memory saturates", "-"),
    _limit("H", H_DECAYING_LONG, r, oo, D / E, "fast decay", "-"),
)  # fmt: skip
"""Every limit the theory promises, theorem D1 of docs/proofs.md; proved by SymPy in the tests."""


def latex(formula: str) -> str:
    """The formula of a term as LaTeX, in the order in which it is written."""
    return _latex(ast.parse(formula, mode="eval").body)[0]


_SUM, _PRODUCT, _POWER, _ATOM = range(4)
_SIGNS = {ast.Lt: "<", ast.LtE: r"\le", ast.Gt: ">", ast.GtE: r"\ge"}
_BRACKETS = {"Abs": ("|", "|"), "ceiling": (r"\lceil ", r"\rceil")}
_NAMES = {
    "E": "e", "pi": r"\pi", "Pi": r"\Pi", "lam": r"\lambda", "gamma": r"\gamma",
    "delta": r"\delta", "ln": r"\ln", "Delta": r"\Delta", "rho": r"\rho", "eta": r"\eta",
    "xi": r"\xi", "l": r"\ell", "log": r"\log", "exp": r"\exp", "Min": r"\min", "Max": r"\max",
}  # fmt: skip


def _latex(node: ast.expr) -> tuple[str, int]:
    """LaTeX of a syntax tree and how strongly its outermost operation binds."""
    match node:
        case ast.Constant(value=value):
            return str(value), _ATOM
        case ast.Name(id=name):
            return _symbol(name), _ATOM
        case ast.UnaryOp(operand=operand):
            return f"-{_within(operand, _PRODUCT)}", _SUM
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            plus = isinstance(node.op, ast.Add)
            after = _within(right, _SUM if plus else _PRODUCT)
            return f"{_within(left, _SUM)} {'+' if plus else '-'} {after}", _SUM
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            factors = _within(left, _PRODUCT), _within(right, _PRODUCT)
            sign = r" \cdot " if factors[1][0].isdigit() else " "
            return sign.join(factors), _PRODUCT
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return rf"\frac{{{_latex(left)[0]}}}{{{_latex(right)[0]}}}", _PRODUCT
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"{_within(left, _ATOM)}^{{{_latex(right)[0]}}}", _POWER
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return f"{_latex(left)[0]} {_SIGNS[type(op)]} {_latex(right)[0]}", _SUM
        case ast.Call(func=ast.Name(id="Piecewise"), args=pieces):
            return rf"\begin{{cases}} {_cases(pieces)} \end{{cases}}", _ATOM
        case ast.Call(func=ast.Name(id="sqrt"), args=[inner]):
            return rf"\sqrt{{{_latex(inner)[0]}}}", _ATOM
        case ast.Call(func=ast.Name(id=name), args=arguments):
            opening, closing = _BRACKETS.get(name, ("(", ")"))
            called = "" if name in _BRACKETS else _symbol(name)
            inside = ", ".join(_latex(argument)[0] for argument in arguments)
            return rf"{called}\left{opening}{inside}\right{closing}", _ATOM
    raise ValueError(f"cannot print {ast.unparse(node)!r}")


def _within(node: ast.expr, strength: int) -> str:
    text, binds = _latex(node)
    return text if binds >= strength else rf"\left({text}\right)"


def _symbol(name: str) -> str:
    """`s_A` as s_{A}, `S1` as S_{1}, `lam_raw` as a Greek letter, longer words upright."""
    base, *indices = name.split("_")
    if len(base) == 2 and base[1].isdigit():
        base, indices = base[0], [base[1], *indices]
    base = _NAMES.get(base) or (base if len(base) == 1 else rf"\mathrm{{{base}}}")
    words = [i if len(i) == 1 else rf"\mathrm{{{i}}}" for i in indices]
    return f"{base}_{{{','.join(words)}}}" if words else base


def _cases(pieces: list[ast.expr]) -> str:
    rows = []
    for piece in pieces:
        assert isinstance(piece, ast.Tuple)
        value, condition = (_latex(element)[0] for element in piece.elts)
        when = r"\text{otherwise}" if condition == "True" else rf"\text{{if }} {condition}"
        rows.append(f"{value} & {when}")
    return r" \\ ".join(rows)
