"""The documentation names files, tests, objects and commands; every one of them exists."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from django.core.management import get_commands

from config.variables import VARIABLES
from lab.chaos.options import options
from lab.invariants import Ledgers, check
from lab.spec.links import astray, patterns_page, with_lines
from monitoring.alerts import RULES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROMISES = sorted((ROOT / "docs" / "promises").glob("p*.md"))
SECTIONS = [
    "What is not promised",
    "How it is kept",
    "When something dies",
    "Proof",
    "Break it",
    "Take it with you",
]

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.(?:py|md|toml|yml|txt)|(?:[\w-]+/)+[\w.-]*")
FOLDERS = "config|orders|payments|webhooks|notifications|outbox|dlq|resilience|monitoring|lab|tests|docs"
DOTTED = re.compile(rf"(?:{FOLDERS})(?:\.\w+)+")
#: What a page may name as a path although it is not in the repository: it comes into being by running.
MADE = ("var/", ".venv")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def each(pattern: re.Pattern[str]) -> Iterator[tuple[str, Any]]:
    """Page and what the pattern found there, outside of fenced blocks."""
    for page in PAGES:
        for found in pattern.findall(prose(page)):
            yield str(page.relative_to(ROOT)), found


def codes() -> Iterator[tuple[str, str]]:
    for page, text in each(CODE):
        yield page, text.removesuffix("()")


@cache
def names_of_tests_in(path: Path) -> frozenset[str]:
    """`test_x`, `TestX::test_y` and the constants of one file."""
    names: set[str] = set()
    if not path.is_file():
        return frozenset()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names.add(ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target))
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return frozenset(names)


def anchor(heading: str) -> str:
    """The fragment that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def resolves(dotted: str) -> bool:
    """Whether a dotted name can be imported: a module, or attributes of one."""
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for name in parts[size:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    assert [link for link in each(LINK) if "://" not in link[1] and not leads_somewhere(*link)] == []


def leads_somewhere(page: str, target: str) -> bool:
    path, _, fragment = target.partition("#")
    if path.endswith(".py"):
        fragment = ""  # lines, which have a test of their own
    file = (ROOT / page).parent / path if path else ROOT / page
    if not fragment:
        return file.exists()
    return fragment in {anchor(line.lstrip("#")) for line in file.read_text().splitlines() if line[:1] == "#"}


def test_every_path_in_code_exists() -> None:
    paths = [item for item in codes() if FILE.fullmatch(item[1]) and not item[1].startswith(MADE)]
    assert len(paths) > 50
    assert [item for item in paths if not (ROOT / item[1]).exists()] == []


def test_every_test_in_code_exists() -> None:
    tests = [(page, *text.split("::", 1)) for page, text in codes() if ".py::" in text]
    assert len(tests) > 50
    assert [item for item in tests if item[2] not in names_of_tests_in(ROOT / item[1])] == []


def test_every_dotted_name_can_be_imported() -> None:
    names = [item for item in codes() if DOTTED.fullmatch(item[1]) and not (ROOT / item[1]).exists()]
    assert [item for item in names if not resolves(item[1])] == []


def test_every_make_target_and_management_command_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = get_commands()
    for page in PAGES:
        text = page.read_text()
        assert set(re.findall(r"(?:`|^ *)make ([a-z]+)", text, re.MULTILINE)) <= targets, page
        for command in re.findall(r"manage\.py ([a-z_]+)", text):
            assert command in commands, f"{page} names manage.py {command}"


def test_every_selection_of_tests_selects_some() -> None:
    selections = [(page, *found) for page, found in each(re.compile(r'ARGS="(tests/[^" ]+)(?: -k (\w+))?"'))]
    assert len(selections) >= 8
    for page, path, word in selections:
        assert any(word in name for name in names_of_tests_in(ROOT / path)), f"{page}: {path} -k {word}"


def test_every_promise_has_a_complete_page_and_a_readme_line() -> None:
    """A page is complete if it has all its sections."""
    assert [page.name[:2] for page in PROMISES] == [f"p{number}" for number in range(1, 9)]
    readme = (ROOT / "README.md").read_text()
    for page in PROMISES:
        assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == SECTIONS, page.name
        assert f"docs/promises/{page.name}" in readme


def test_the_readme_shows_the_invariants_that_the_demo_checks() -> None:
    nothing = Ledgers(**{field.name: 0 if field.type == "int" else () for field in fields(Ledgers)})
    readme = (ROOT / "README.md").read_text()
    assert [finding.promise for finding in check(nothing) if finding.promise not in readme] == []


def test_the_table_of_environment_variables_is_the_one_that_the_code_reads() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", (ROOT / "docs" / "environment.md").read_text(), re.MULTILINE
    )
    documented = {name: (default, meaning) for name, default, meaning in rows}
    for name, variable in VARIABLES.items():
        default = (
            "required"
            if variable.default is None
            else f"`{variable.default}`"
            if variable.default
            else "empty"
        )
        assert documented.get(name) == (default, variable.meaning), name
    elsewhere = (ROOT / "Makefile").read_text() + (ROOT / "Procfile").read_text()
    for name in documented.keys() - VARIABLES.keys():
        assert re.search(rf"\b{name}\b", elsewhere), f"nothing reads {name}"


def test_the_lab_reads_exactly_the_variables_of_its_table() -> None:
    text = (ROOT / "docs" / "environment.md").read_text()
    section = text.split("## Of the lab's commands", 1)[1].split("\n## ", 1)[0]
    benchmarks = ("lab/bench/options.py", "lab/bench/shop/subjects.py", "lab/bench/world.py")
    documented = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE))
    read = {
        name
        for path in ("lab/demo.py", "lab/up.py", "lab/chaos/options.py", *benchmarks)
        for name in re.findall(
            r"(?:environ\.get|_number)\(\"([A-Z_]+)\"", (ROOT / path).read_text(), re.MULTILINE
        )
    }
    assert documented == read
    assert f"| `MINUTES` | `{options().minutes:g}` |" in section


def test_every_alert_has_a_line_in_the_operators_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in RULES if f"`{name}`" not in page] == []


def test_every_variable_of_the_makefile_and_the_procfile_is_in_the_table() -> None:
    text = (ROOT / "docs" / "environment.md").read_text()
    made_by_the_lab = {"SANDBOX_PORT", "SANDBOX_SMTP_PORT", "SANDBOX_DATA"}
    named = set(re.findall(r"\$\{?([A-Z_]+)", (ROOT / "Procfile").read_text()))
    named |= set(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not {name for name in named - made_by_the_lab if f"`{name}`" not in text}


def test_every_row_of_the_patterns_leads_to_lines_of_code_and_proof() -> None:
    table = (ROOT / "README.md").read_text().split("| PATTERN |", 1)[1].split("\n## ", 1)[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:] if row]
    assert len(rows) > 25
    assert [row[0] for row in rows if not re.search(r"\(docs/(lessons|proof)[^)]*\)", row[1])] == []
    assert [row[0] for row in rows if "#L" not in row[2]] == []
    assert [row[0] for row in rows if "`test_" not in row[3] and "`Test" not in row[3]] == []
    targets = [target for row in rows for target in LINK.findall(f"{row[2]} {row[3]}")]
    assert len(targets) > 70
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []


def test_a_link_to_lines_leads_to_what_it_names() -> None:
    assert astray((ROOT / "README.md").read_text(), ROOT) == [], "make spec writes it anew"


def test_the_sites_table_of_patterns_is_that_of_the_readme() -> None:
    made = patterns_page((ROOT / "README.md").read_text())
    assert (ROOT / "docs" / "patterns.md").read_text() == made, "make spec writes it anew"


def test_the_lines_of_a_link_are_written_anew_and_checked() -> None:
    link = "[`resilience/retry_after.py::parse_retry_after`](resilience/retry_after.py#L{})"
    right = with_lines(link.format("1-L2"), ROOT)
    first = (ROOT / "resilience/retry_after.py").read_text().splitlines().index("def parse_retry_after(") + 1
    assert right.startswith(link.format(f"{first}-L").removesuffix(")"))
    assert astray(right, ROOT) == []
    assert astray(link.format("1-L2"), ROOT) == [link.format("1-L2")]
