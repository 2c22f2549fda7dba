"""Small faults of Python source: which there can be, and the source that has one of them.

A fault changes one comparison, sum, product, number, condition, minimum or named argument, or leaves out a call
whose value nobody takes. Types, docstrings, the texts of errors and the options of a dataclass are left alone.
"""

import ast
import copy
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
    ast.Invert: ast.UAdd,
}
"""Operators and what stands in their place in a mutant."""

PAIRS = (("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("any", "all"), ("floor", "ceil"))
NAMES = {**dict(PAIRS), **{other: one for one, other in PAIRS}}
"""Functions and what is called in their place in a mutant."""


@dataclass(frozen=True)
class Site:
    """One fault that a file can have.

    Attributes:
        path: of the file, below the program's folder.
        number, variant: which node, in the order of the walk, and which of its faults.
        first, last: lines of its statement, of a compound one those of its head.
        inside: whether it stands in the body of a function, and not where the file is imported.
    """

    path: str
    number: int
    variant: int
    first: int
    last: int
    inside: bool


@dataclass(frozen=True)
class Mutant:
    """A site with its statement ``before`` and ``after`` the change, and the ``source`` of the whole file."""

    site: Site
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """Names the fault by its content."""
        return hashlib.sha256(f"{self.site.path}\n{self.source}".encode()).hexdigest()[:16]


def sites(path: str, text: str) -> list[Site]:
    """Every fault that a file with this ``text`` can have."""
    return [
        Site(path, number, variant, statement.lineno, _last_line(statement), inside)
        for number, (node, statement, inside) in enumerate(_nodes(ast.parse(text)))
        for variant in range(len(_changes(node, inside)))
    ]


def mutant(text: str, site: Site) -> Mutant:
    """The file with one fault."""
    tree = ast.parse(text)
    node, statement, inside = next(found for number, found in enumerate(_nodes(tree)) if number == site.number)
    before = _head(statement)
    _apply(node, _changes(node, inside)[site.variant])
    return Mutant(site, before, _head(statement), ast.unparse(ast.fix_missing_locations(tree)))


def statements(text: str) -> set[str]:
    """The statements of a file as ``Mutant.before`` gives them."""
    return {_head(node) for node, *_ in _nodes(ast.parse(text)) if isinstance(node, ast.stmt)}


def _nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.stmt, bool]]:
    """Nodes that can have faults, each with its statement and whether that is in a function's body."""

    def walk(node: ast.AST, statement: ast.stmt | None, inside: bool) -> Iterator[tuple[ast.AST, ast.stmt, bool]]:
        if _without_effect(node):
            return
        if isinstance(node, ast.stmt):
            statement = node
        if statement is not None:
            yield node, statement, inside
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            deeper = inside or (field == "body" and isinstance(node, ast.FunctionDef))
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, statement, deeper)

    yield from walk(tree, None, False)


def _without_effect(node: ast.AST) -> bool:
    """Parts that no test can see, or that only guard against the programmer: docstrings, texts, dataclass(...)."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Raise() | ast.JoinedStr():
            return True
        case ast.Call(func=ast.Name(id="dataclass")):
            return True
    return False


def _changes(node: Any, inside: bool) -> list[tuple]:
    """What can be changed at a node: (what, its place, its new value)."""
    match node:
        case ast.Compare():
            return [("op", place, SWAPS[type(op)]) for place, op in enumerate(node.ops) if type(op) in SWAPS]
        case ast.BinOp(op=ast.BitOr()) if not inside:
            return []  # a type
        case ast.BinOp(left=ast.Constant(value=str())) | ast.BinOp(right=ast.Constant(value=str())):
            return []  # texts
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() | ast.UnaryOp(op=ast.USub() | ast.Invert()):
            return [("operator", 0, SWAPS[type(node.op)])] if type(node.op) in SWAPS else []
        case ast.UnaryOp(op=ast.Not()):
            return [("operand", 0, None)]
        case ast.Constant(value=bool() as value):
            return [("value", 0, not value)]
        case ast.Constant(value=int() | float() as number) if math.isfinite(number):
            return [("value", 0, number + 1)]
        case ast.If() | ast.IfExp():
            return [("test", 0, None)]
        case ast.Name(id=name) if name in NAMES:
            return [("id", 0, NAMES[name])]
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in NAMES:
            return [("attr", 0, NAMES[name])]
        case ast.Call():
            return [("keyword", place, None) for place, part in enumerate(node.keywords) if part.arg]
        case ast.Expr(value=ast.Call()):
            return [("call", 0, None)]
    return []


def _apply(node: Any, change: tuple) -> None:
    match change:
        case "op", place, kind:
            node.ops[place] = kind()
        case "operator", _, kind:
            node.op = kind()
        case ("operand" | "test") as field, _, _:
            setattr(node, field, ast.UnaryOp(ast.Not(), getattr(node, field)))
        case "keyword", place, _:
            node.keywords.pop(place)
        case "call", _, _:
            node.value = ast.Constant(...)
        case field, _, value:
            setattr(node, field, value)


def _last_line(statement: Any) -> int:
    """Of the part of a statement in which its own faults are."""
    body = getattr(statement, "body", None)
    return max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno


def _head(statement: ast.stmt) -> str:
    """The statement's text, without the statements that it holds."""
    short = copy.copy(statement)
    nothing: list[ast.stmt] = [ast.Expr(ast.Constant(...))]
    for name in ("body", "orelse", "finalbody", "handlers"):
        if getattr(short, name, None):
            setattr(short, name, nothing if name == "body" else [])
    if isinstance(short, ast.Match):
        short.cases = [ast.match_case(case.pattern, case.guard, nothing) for case in short.cases]
    return ast.unparse(ast.fix_missing_locations(short)).removesuffix("\n    ...")
