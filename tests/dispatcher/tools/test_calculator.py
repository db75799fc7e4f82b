import contextlib
import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.tools.calculator import MAX_BITS, evaluate
from dispatcher.tools.errors import ToolError

literals = st.integers(0, 999).map(str) | st.floats(0, 1000, allow_nan=False).map(repr)
expressions = st.recursive(
    literals,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner).map(
            lambda p: f"({' '.join(p)})"
        ),
        inner.map(lambda text: f"(-{text})"),
        inner.map(lambda text: f"abs({text})"),
    ),
    max_leaves=8,
)


@given(expressions)
@example("(2 ** 1023)")
@example("((-1) ** 99999)")
@example("((-2) ** 3)")
@example("((-8) ** 0.5)")
@example("(0 ** (-1))")
def test_it_agrees_with_python_or_refuses(expression: str) -> None:
    try:
        value = evaluate(expression)
    except ToolError:
        return
    assert value == eval(expression)  # noqa: S307 (made above, bounded by what evaluate() took)
    assert abs(value) < 2**MAX_BITS


@given(st.text() | st.text(st.sampled_from("0123456789.+-*/%()eE_ jπpiround,sqtmax'\"[]{}:=\n\0"), max_size=80))
def test_any_text_gives_a_number_or_a_reason(text: str) -> None:
    with contextlib.suppress(ToolError):
        assert math.isfinite(evaluate(text))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7), (" (1 + 2) * 3 ", 9), ("7 // 2", 3), ("7 % 4", 3), ("2 ** -1", 0.5), ("sqrt(16)", 4.0),
        ("round(2.567, 2)", 2.57), ("round(2.5)", 2), ("max(1, 2, 3)", 3), ("-(-3)", 3), ("1e3", 1000.0),
        ("cos(pi)", -1.0), ("0 ** 0", 1), ("(-1) ** 1000001", -1), ("10 ** 300", 10**300),
    ],
)  # fmt: skip
def test_values(expression: str, value: float) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / 0", "division by zero"),
        ("9 ** 9 ** 9", "a number is too large"),
        ("9.0 ** 999", "a number is too large"),
        ("10 ** 308 * 10 ** 308", "a number is too large"),
        ("1e308 * 10", "a number is too large"),
        ("9" * 400, "a number is too large"),
        ("(-8) ** 0.5", "the root of a negative number is not real"),
        ("sqrt(-1)", "a function cannot take these arguments"),
        ("sqrt(1, 2)", "a function cannot take these arguments"),
        ("round(5, -999999999)", "round() takes at most 15 digits"),
        ("2 ^ 3", "unknown operator '^': a power is written **"),
        ("x + 1", "unknown name 'x'"),
        ("__import__('os')", "unknown function '__import__'; known are abs, "),
        ("2 + * 3", "the expression cannot be read, near column 5: invalid syntax"),
        ("2 +", "the expression cannot be read"),
        ("", "the expression cannot be read"),
        ("1\0", "the expression cannot be read"),
        ("(" * 250 + ")" * 250, "the expression cannot be read"),
        ("-" * 499 + "1" * 2, "the expression has more than 500 characters"),
        ("True", "only numbers"), ("1j", "only numbers"), ("'a' * 9", "only numbers"), ("(1).real", "only numbers"),
        ("[1][0]", "only numbers"), ("1 if 1 else 2", "only numbers"), ("1 << 9", "only numbers"),
        ("round(1.5, digits=1)", "round() takes no named arguments"),
    ],
)  # fmt: skip
def test_reasons(expression: str, reason: str) -> None:
    with pytest.raises(ToolError) as raised:
        evaluate(expression)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    "expression", ["-" * 499 + "1", "2**" * 166 + "2", "9*" * 249 + "9", "(" * 199 + "1" + ")" * 199]
)
def test_no_expression_takes_long(expression: str) -> None:
    started = time.process_time()
    with contextlib.suppress(ToolError):
        evaluate(expression)
    assert time.process_time() - started < 0.2
