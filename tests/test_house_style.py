"""What CONTRIBUTING.md says about sizes and docstrings holds."""

import ast
import re

import pytest
from documents import ROOT, name_of, read

SOURCES = sorted((ROOT / "src/realignment").rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(text, nodes, tree):
    """Lines of these statements without docstrings, comments and blank lines."""
    documented = [
        part.body[0]
        for part in ast.walk(tree)
        if isinstance(part, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(part, clean=False)
    ]
    docstrings = {line for part in documented for line in range(part.lineno, part.end_lineno + 1)}
    lines = text.splitlines()
    return sum(
        1
        for node in nodes
        for line in range(node.lineno, node.end_lineno + 1)
        if line not in docstrings and lines[line - 1].strip() and not lines[line - 1].strip().startswith("#")
    )


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_file_has_more_than_250_lines_of_code_and_no_body_of_a_function_more_than_40(file):
    text = read(file)
    tree = ast.parse(text)
    assert lines_of_code(text, tree.body, tree) <= 250
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.name != "create_pipeline":
            size = lines_of_code(text, node.body, tree)
            assert size <= 40, f"{node.name}: {size} lines"


def signature(function):
    """Names of the parameters in order, as a docstring lists them."""
    rest = [arguments for arguments in (function.args.vararg, function.args.kwarg) if arguments]
    plain = [*function.args.posonlyargs, *function.args.args]
    names = [argument.arg for argument in (*plain, *function.args.kwonlyargs, *rest)]
    return [name for name in names if name not in ("self", "cls") and name.strip("_")]


def documented_arguments(docstring):
    after = docstring.split("\nArgs:\n", 1)[1]
    return re.findall(r"^    \*{0,2}(\w+):", re.split(r"\n(?=\S)", after)[0], re.MULTILINE)


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_a_docstring_that_lists_arguments_has_them_in_order_and_says_what_is_returned(file):
    for node in ast.walk(ast.parse(read(file))):
        docstring = ast.get_docstring(node) if isinstance(node, FUNCTIONS) else None
        if docstring is None or "\nArgs:\n" not in docstring:
            continue
        assert documented_arguments(docstring) == signature(node), node.name
        if node.returns is None or ast.unparse(node.returns) in ("None", "NoReturn"):
            continue
        said = docstring.startswith(("Return", "Yield")) or re.search(r"\n(Returns|Yields):\n", docstring)
        assert said, f"{node.name} has no `Returns`"
