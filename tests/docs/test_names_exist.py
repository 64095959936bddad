"""Docstrings and comments name modules, attributes, files, settings and commands; every one of them exists."""

import ast
import builtins
import inspect
import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from django.core.management import get_commands

from tests.docs.test_links import CODE, DOTTED, FILE, FOLDERS, MADE, ROOT, names_of_tests_in, resolves

SOURCES = sorted(
    path
    for folder in FOLDERS.split("|")
    for path in (ROOT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
#: A path in plain text begins with a folder of ours; a setting with the prefix of one.
PATH = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w\.(?:py|md|toml|html)\b(?:::\w+)*")
NAME = re.compile(rf"(?<![\w./@-]){DOTTED.pattern}\b(?![/(]?\w)")
SETTING = re.compile(
    r"(?<![\w-])(?:OUTBOX|DLQ|MONITORING|RESILIENCE|ORDERS|WEBHOOKS|IDEMPOTENCY)_[A-Z_]*[A-Z]\b"
)
COMMAND = re.compile(r"(?:`|python )manage\.py ([a-z_]+)")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
#: What looks like a name of ours and is none: a header and a key in it, examples, names of libraries that no code here uses.
OTHERS = frozenset(
    {
        "outbox.generation",
        "outbox.Celery",
        "package.module.Class.method",
        "test_x",
        "on_success",
        "require_http_methods",
        "task_soft_time_limit",
        "transport_cls",
        "worker_soft_shutdown_timeout",
        "__lt",
    }
)


@cache
def prose(path: Path) -> tuple[str, ...]:
    """The docstrings of a file, and its comments, each block of lines as one."""
    text = path.read_text()
    found = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comment = token.string.lstrip("#: ")
            if token.start[0] == last + 1:
                found[-1] += f" {comment}"
            else:
                found.append(comment)
            last = token.start[0]
    return tuple(filter(None, found))


@cache
def identifiers() -> frozenset[str]:
    """Every name that the code of this repository knows: names, attributes, keywords, and the words of its strings."""
    known = set(dir(builtins)) | set(keyword.kwlist)
    for path in [*SOURCES, ROOT / "manage.py"]:
        documented = set(prose(path))
        for node in ast.walk(ast.parse(path.read_text())):
            for field in ("id", "attr", "arg", "name", "asname", "module"):
                value = getattr(node, field, None)
                if isinstance(value, str):
                    known.update(value.split("."))
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and inspect.cleandoc(value) not in documented:
                known.update(re.findall(r"\w+", value))
    for path in (*ROOT.glob("*"), *(ROOT / "docs").glob("*.md")):
        if path.is_file() and path.suffix in {"", ".toml", ".yml", ".txt"}:
            known.update(re.findall(r"\w+", path.read_text()))
    return frozenset(known)


def each(pattern: re.Pattern[str], *, code: bool = False) -> Iterator[tuple[str, str]]:
    """File and what the pattern found in its prose; `code`: only where it is the whole of what is in backticks."""
    for path in SOURCES:
        for text in prose(path):
            found = (
                [span for span in CODE.findall(text) if pattern.fullmatch(span.removesuffix("()"))]
                if code
                else [match.group() for match in pattern.finditer(text)]
            )
            for name in found:
                yield str(path.relative_to(ROOT)), name.removesuffix("()")


def exists(source: str, path: str) -> bool:
    """Whether a path exists, from the root or from the folder of the file that names it."""
    file, _, test = path.partition("::")
    if test:
        return test in names_of_tests_in(ROOT / file)
    return path.startswith(MADE) or (ROOT / path).exists() or (ROOT / source).parent.joinpath(path).exists()


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a file, a module (one whose package is not installed, too) or an attribute."""
    return (ROOT / dotted).exists() or (ROOT / f"{dotted.replace('.', '/')}.py").exists() or resolves(dotted)


def test_every_path_in_a_docstring_or_comment_exists() -> None:
    paths = [*each(PATH), *each(FILE, code=True)]
    assert len(paths) > 10
    assert [item for item in paths if not exists(*item)] == []


def test_every_dotted_name_in_a_docstring_or_comment_can_be_imported() -> None:
    names = [*each(NAME), *each(DOTTED, code=True)]
    assert len(names) > 50
    assert [item for item in names if item[1] not in OTHERS and not is_there(item[1])] == []


def test_every_setting_in_a_docstring_or_comment_is_one() -> None:
    settings = list(each(SETTING))
    assert len(settings) > 30
    assert [item for item in settings if item[1] not in identifiers()] == []


def test_every_command_in_a_docstring_or_comment_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = get_commands()
    for path in SOURCES:
        for text in prose(path):
            assert set(re.findall(r"`make ([a-z]+)", text)) <= set(targets), path
            assert set(COMMAND.findall(text)) <= {"help", *commands}, path


def test_every_identifier_in_backticks_is_one_that_the_code_knows() -> None:
    names = [item for item in each(IDENTIFIER, code=True) if item[1] not in OTHERS]
    assert len(names) > 500
    assert [item for item in names if not identifiers().issuperset(item[1].split("."))] == []
