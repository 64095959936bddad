"""The prose linter of `make lint`: proselint and the house's own rules, over the README and every page of docs/; and the
names of the tests, which are short sentences.

Code, links and comments are taken out first. A paragraph is ended with a full stop, so that a heading and the sentence below it
do not count as a repeated word.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from proselint.checks import __register__ as checks
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

# Straight quotes and three dots are what a keyboard has.
CONFIG = {**DEFAULT, "checks": {**DEFAULT["checks"], "typography": False}}

NOT_PROSE = re.compile(
    r"^```.*?^```$|^ {4}\S.*?$|`[^`]+`|<!--.*?-->|<[^>\n]+>|(?<=\])\([^)\s]+\)", re.MULTILINE | re.DOTALL
)

#: Words of a test's name after `test`; what is more belongs in its docstring.
MOST_WORDS = 12

#: Pattern -> what to write. Ways of saying things that a reader had to read twice.
HOUSE = {
    r"\ban? an?\b": "one article",
    r"\b[Aa] (?=[aio]\w|e(?!u)\w|hour\b|u[mnp](?!i))(?!one?\b|once\b)": "an",
    r"\b[Aa]n (?=[bcdfgjkpqtvwyz]\w|one?\b|h(?!our|onest|eir)\w|uni|use)": "a",
    r"\bbelongs? into\b": "belongs in",
    r"\bby sample\b": "by example",
    r"(?i:\bnobody\b)": "say who, or what",
    r"(?:[.;]|^-|\|) [Ww]ho (?![^.]*\?)": "name the subject: a client who ...",
    r"\b(?:wakes|woke) up\b": "a process goes on",
    r"\bthe documents\b": "name the page or the behaviour",
}


def only_prose(text: str) -> str:
    """The text with everything else blanked, and every character where it was."""
    text = NOT_PROSE.sub(lambda found: re.sub(r"[^\n]", "-", found[0]), text)
    return re.sub(r"\n(?=\n)", ".\n", text)


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Line and complaint, for each thing that a reader would stumble over."""
    prose = only_prose(text)
    for found in LintFile("page", prose).lint(CONFIG):
        yield found.pos[0], found.check_result.message.replace("\n", " ")
    for pattern, advice in HOUSE.items():
        for match in re.finditer(pattern, prose, re.MULTILINE):
            yield prose.count("\n", 0, match.start()) + 1, f"'{match[0].strip()}': {advice}"


def long_names(tests: Path) -> Iterator[str]:
    """File, line and complaint, for each test whose name has more than `MOST_WORDS` words."""
    for path in sorted(tests.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = len(node.name.split("_")) - 1
                if words > MOST_WORDS:
                    place = f"{path.relative_to(tests.parent)}:{node.lineno}"
                    yield f"{place}: {node.name} has {words} words, at most {MOST_WORDS}: put more in its docstring"


def main() -> int:
    """Returns 1 if any page, or the name of any test, has a problem."""
    CheckRegistry().register_many(checks)
    found = [
        f"{page.relative_to(ROOT)}:{line}: {problem}"
        for page in PAGES
        for line, problem in sorted(problems(page.read_text()))
    ] + list(long_names(ROOT / "tests"))
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
