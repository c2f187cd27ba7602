"""jinja2's sandbox with a budget: nothing in it runs or grows without being paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import islice
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from paddlemix.processors.templates.budget import (
    OverBudget,
    budget,
    cost,
    spend_on_format,
    spend_on_operator,
)

# A template that no one writes by hand; the longest published ones have 20,000 characters.
MAX_SOURCE = 2**16
# Levels of statements and expressions within one another; a sum or a chain of tests is one a term.
_MAX_DEPTH = 200
# What a text can be asked for. `format` has a guard of its own; the others make bytes, or tables.
_OF_TEXTS = frozenset({
    "capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
    "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind",
    "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
    "title", "upper", "zfill",
})  # fmt: skip
_OF_NUMBERS = frozenset({"is_integer", "bit_length", "real", "imag", "numerator", "denominator"})
# Filters of jinja2 for other things than prompts.
_LEFT_OUT = ("urlize", "xmlattr", "pprint", "random", "forceescape", "filesizeformat", "urlencode")
# Filters and methods that look at all that a value holds.
_DEEP = frozenset({"string", "unique", "sort", "dictsort", "groupby", "min", "max", "safe", "e", "escape"})
_DEEP_METHODS = frozenset({"index", "count", "get", "changed"})
# Tests that look at a value's kind alone.
_OF_KINDS = frozenset({
    "boolean", "callable", "defined", "false", "float", "integer", "mapping", "none", "number", "sameas", "sequence",
    "string", "true", "undefined",
})  # fmt: skip
# Tests that divide, which is another operator for texts.
_DIVIDING = frozenset({"odd", "even", "divisibleby"})
_LONGEST_PATH = 100
# Texts shorter than this cost nothing to compare beyond the step itself, which its body pays for.
_FREE = 64
_WIDEST = 1000


class BudgetedSandbox(ImmutableSandboxedEnvironment):
    """What templates are compiled and rendered in.

    Args:
        **options: jinja2's.

    Attributes:
        intercepted_binops: the operators that `call_binop` computes.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        # Nothing is computed while a template is compiled: there is no budget yet.
        super().__init__(**options, optimized=False, finalize=_paid_output)
        self.code_generator_class = _Generator
        self.globals.pop("lipsum")
        for name in _LEFT_OUT:
            del self.filters[name]
        self.filters = {name: _paid_filter(name, one) for name, one in self.filters.items()}
        tests: Mapping[str, Any] = self.tests
        self.tests = {name: one if name in _OF_KINDS else _paid_test(name, one) for name, one in tests.items()}

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Let templates use one more filter.

        Args:
            name: of the filter.
            function: what it calls.
        """
        self.filters[name] = _paid_filter(name, function)

    def parse_counted(self, source: str) -> nodes.Template:
        """Parse a template, and have each body that can be run again pay for every run.

        Args:
            source: jinja2 text.

        Returns:
            The template.

        Raises:
            RecursionError: it is nested deeper than the steps that follow can go.
        """
        parsed = self.parse(source)
        _check_depth(parsed)
        node: Any
        for node in list(parsed.find_all((nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block))):
            node.body.insert(0, nodes.ExprStmt(_tick(node, node.body), lineno=node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = nodes.And(_tick(node, [node.test]), node.test, lineno=node.lineno)
        parsed.set_environment(self)
        return parsed

    def tick(self, units: int) -> bool:
        """Pay for one run of a body."""
        budget().spend(units)
        return True

    def joined(self, parts: Iterable[Any]) -> str:
        """Join what `~` stands between."""
        parts = list(parts)
        budget().spend_on_text(parts)
        return "".join(map(str, parts))

    def compared(self, value: Any) -> Any:
        """Pay for a value that is compared, or looked for in another."""
        if isinstance(value, str):
            if len(value) >= _FREE:
                budget().spend(len(value) >> 6)
        elif isinstance(value, (list, tuple, Mapping)):
            budget().spend_on_text(value)
        return value

    def searched(self, value: Any) -> Any:
        """Pay for a value in which another is looked for; keys are not looked at one by one."""
        return value if isinstance(value, Mapping) else self.compared(value)

    def sliced(self, value: Any) -> Any:
        """Pay for a value of which a part is copied."""
        budget().spend(cost(value) >> 2)
        return value

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item; a key that holds others is looked at whole."""
        return super().getitem(obj, self.compared(argument) if isinstance(argument, tuple) else argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Tell whether a template may have an attribute."""
        if isinstance(obj, str):
            return attr in _OF_TEXTS
        if isinstance(obj, (int, float, complex, bytes)):
            return attr in _OF_NUMBERS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Let `format` of a text pay."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @wraps(wrapped)
        def paid(*args: Any, **kwargs: Any) -> str:
            spend_on_format(value.__self__, [args, kwargs])
            return wrapped(*args, **kwargs)

        return paid

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator that may make more than it is given."""
        spend_on_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or a function."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            args = _paid_method(owner, name, args)
        elif name in _DEEP_METHODS and not isinstance(owner, BudgetedSandbox):
            budget().spend_on_text([args, owner if name in ("index", "count") else None])
        elif owner is not None and not isinstance(owner, BudgetedSandbox):
            budget().spend(cost(owner))
        made = super().call(__context, __obj, *args, **kwargs)
        if isinstance(made, (str, list, tuple, range)):
            budget().spend(cost(made))
        return made


class _Generator(CodeGenerator):
    """Writes calls of the sandbox round what jinja2 computes by itself."""

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        # Only what pays for bodies is named so: no template can, and the way of all other calls takes longer.
        if isinstance(node.node, nodes.EnvironmentAttribute) and isinstance(node.args[0], nodes.Const):
            self.write(f"environment.{node.node.name}({node.args[0].value})")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for one in node.nodes:
            self.visit(one, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(")
        self._paid("compared", node.expr, frame)
        for one in node.ops:
            self.visit(one, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        sign = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}
        self.write(f" {sign[node.op]} ")
        self._paid("searched" if node.op in ("in", "notin") else "compared", node.expr, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self._paid("sliced", node.node, frame)
        self.write("[")
        self.visit(node.arg, frame)
        self.write("]")

    def _paid(self, name: str, node: nodes.Node, frame: Frame) -> None:
        self.write(f"environment.{name}(")
        self.visit(node, frame)
        self.write(")")


def _check_depth(parsed: nodes.Node) -> None:
    """Refuse what those steps that follow children by calling themselves would take long to fail at."""
    level = [parsed]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in node.iter_child_nodes()]
    if level:
        raise RecursionError(f"more than {_MAX_DEPTH} levels")


def _tick(node: nodes.Node, body: list[nodes.Node]) -> nodes.Expr:
    """Make the call that pays for a body: its nodes, and the characters that it writes as they stand."""
    inside = [one for part in body for one in (part, *part.find_all(nodes.Node))]
    units = len(inside) + sum(len(one.data) for one in inside if isinstance(one, nodes.TemplateData))
    called = nodes.EnvironmentAttribute("tick", lineno=node.lineno)
    return nodes.Call(called, [nodes.Const(units, lineno=node.lineno)], [], None, None, lineno=node.lineno)


@pass_context
def _paid_output(context: Context, value: Any) -> Any:
    """Pay for what a template writes; it takes the context, so that jinja2 does not call it while compiling."""
    del context
    budget().spend_on_text(value)
    return value


def _paid_test(name: str, test: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(test)
    def paid(*args: Any, **kwargs: Any) -> Any:
        if name in _DIVIDING and any(isinstance(value, str) for value in args):
            raise OverBudget(f"the test {name} is given a text")
        for value in (*args, *kwargs.values()):
            if isinstance(value, (str, list, tuple, Mapping)):
                budget().spend((len(value) >> 6) + 1) if isinstance(value, str) else budget().spend_on_text(value)
        return test(*args, **kwargs)

    return paid


def _paid_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    hidden = int(getattr(function, "jinja_pass_arg", None) is not None)

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[hidden:]
        for one in (*others, *kwargs.values()):
            _check_argument(name, one)
        if name in ("join", "sum") and not isinstance(value, (str, Mapping)):
            value = list(islice(value, 2**20))
        _spend_on_filter(name, value, [*others, *kwargs.values()])
        made = function(*args[:hidden], value, *others, **kwargs)
        budget().spend(1 + (cost(made) if isinstance(made, (str, list, tuple)) else 0))
        return made

    return paid


def _check_argument(name: str, value: Any) -> None:
    """Refuse widths and paths of attributes that make a filter's work many times what it is given."""
    if isinstance(value, int) and not -_WIDEST <= value <= _WIDEST and name not in ("default", "d", "int", "select"):
        raise OverBudget(f"the filter {name} is given {value if value.bit_length() < 64 else 'a number without end'}")
    is_path = name in ("map", "selectattr", "rejectattr", "sort", "groupby", "sum", "unique", "min", "max", "join")
    if isinstance(value, str) and is_path and len(value) > _LONGEST_PATH:
        raise OverBudget(f"the filter {name} is given a text of {len(value)} characters")
    budget().spend(cost(value))


def _spend_on_filter(name: str, value: Any, others: list[Any]) -> None:
    budget().spend(cost(value))
    whole = sum(max(int(one), 0) for one in others if isinstance(one, int))
    texts = sum(len(one) for one in others if isinstance(one, str))
    if name in _DEEP:
        budget().spend_on_text(value, times=6)
    elif name == "tojson":
        budget().spend_on_text(value, times=6, a_level=whole + texts)
    elif name == "join":
        budget().spend_on_text(value)
        budget().spend(len(value) * texts)
    elif name == "sum":
        budget().spend(len(value) * sum(cost(one) for one in value if not isinstance(one, (int, float))))
    elif name == "format":
        spend_on_format(str(value), others)
    elif name in ("indent", "wordwrap", "replace", "truncate"):
        budget().spend_on_text(value)
        budget().spend((cost(value) + 1) * (1 + texts) + (str(value).count("\n") + 1) * whole)
    elif name == "round" and not isinstance(value, (int, float)):
        raise OverBudget("the filter round is given no number")
    elif name in ("center", "batch", "slice"):
        budget().spend(20 * whole)
    elif name in ("upper", "lower", "title", "capitalize", "trim", "striptags", "wordcount", "int", "float", "list"):
        if not isinstance(value, str):
            budget().spend_on_text(value)
        budget().spend(3 * cost(value))


def _paid_method(owner: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pay for a method of a text, by what it makes.

    Args:
        owner: the text.
        name: of the method.
        args: that it is called with.

    Returns:
        The arguments to call it with.

    Raises:
        OverBudget: less is left.
    """
    whole = sum(max(one, 0) for one in args if isinstance(one, int))
    units = len(owner)
    if name == "join" and args:
        args = (list(islice(args[0], 2**20)),)
        budget().spend_on_text(args[0])
        units = len(owner) * len(args[0])
    elif name == "replace" and len(args) > 1 and isinstance(args[0], str):
        units += owner.count(args[0]) * cost(args[1])
    elif name in ("center", "ljust", "rjust", "zfill"):
        units += whole
    elif name == "expandtabs":
        units += (owner.count("\t") + 1) * (whole or 8)
    elif name in ("split", "rsplit", "splitlines"):
        separator = args[0] if args and isinstance(args[0], str) and args[0] else None
        units += _PIECE * ((owner.count(separator) if separator else len(owner) // 2) + 1)
    budget().spend(units)
    return args


# What a piece of a text that is cut takes beside its characters.
_PIECE = 50
