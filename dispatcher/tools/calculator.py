"""Arithmetic from a text, by walking its syntax tree: nothing is evaluated as Python. Size and time are bounded."""

import ast
import math
import operator
from collections.abc import Callable, Mapping

from dispatcher.tools.errors import ToolError

MAX_EXPRESSION = 500  # characters
MAX_BITS = 1024  # of an integer: the range of a float, about 1e308
MAX_DIGITS = 15  # that round() may be asked for: what a float holds

Number = int | float

_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_OPERATORS: Mapping[type, Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def evaluate(expression: str) -> Number:
    """The value. Raises ToolError, with a text for whoever wrote the expression."""
    if len(expression) > MAX_EXPRESSION:
        raise ToolError(f"the expression has more than {MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        where = f", near column {error.offset}" if error.lineno == 1 and error.offset else ""
        raise ToolError(f"the expression cannot be read{where}: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError):  # null bytes, nesting
        raise ToolError("the expression cannot be read") from None
    try:
        return _value(tree.body)
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise _too_large() from None
    except RecursionError:
        raise ToolError("the expression is nested too deeply") from None
    except (ValueError, TypeError):  # a function outside of its domain, or with the wrong number of arguments
        raise ToolError("a function cannot take these arguments") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _checked(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Name(id=name):
            raise ToolError(f"unknown name {name!r}")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATORS:
            # two integers within MAX_BITS: the largest product is twice as long, and cheap
            return _checked(_OPERATORS[type(operation)](_value(left), _value(right)))
        case ast.BinOp(op=ast.BitXor()):
            raise ToolError("unknown operator '^': a power is written **")
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _checked(_FUNCTIONS[name](*map(_value, arguments)))
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            raise ToolError(f"{name}() takes no named arguments")
        case ast.Call(func=ast.Name(id=name)):
            raise ToolError(f"unknown function {name!r}; known are {', '.join(_FUNCTIONS)}")
    raise ToolError("only numbers, + - * / // % **, parentheses and functions can be used")


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int):
        # bit_length - 1 bits of |base| come back for each factor; 0 and ±1 stay as they are
        if exponent > 0 and (abs(base).bit_length() - 1) * exponent > MAX_BITS:
            raise _too_large()
        if abs(base) <= 1 and exponent > 0:
            exponent = 2 - exponent % 2
    result: Number | complex = base**exponent
    if isinstance(result, complex):
        raise ToolError("the root of a negative number is not real")
    return _checked(result)


def _checked(number: Number) -> Number:
    if (isinstance(number, int) and number.bit_length() > MAX_BITS) or not math.isfinite(number):
        raise _too_large()
    return number


def _too_large() -> ToolError:
    return ToolError("a number is too large")


def _round(number: Number, digits: Number = 0) -> Number:
    if not isinstance(digits, int) or abs(digits) > MAX_DIGITS:
        raise ToolError(f"round() takes at most {MAX_DIGITS} digits")
    return round(number, digits) if digits else round(number)


_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "abs": abs,
    "ceil": math.ceil,
    "cos": math.cos,
    "degrees": math.degrees,
    "exp": math.exp,
    "floor": math.floor,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "max": max,
    "min": min,
    "radians": math.radians,
    "round": _round,
    "sin": math.sin,
    "sqrt": math.sqrt,
    "tan": math.tan,
}
