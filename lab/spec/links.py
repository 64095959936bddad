"""Links to lines of code, as a page on a code host follows them: `make spec` writes their lines anew.

    [`outbox/enqueue.py::enqueue`](outbox/enqueue.py#L30-L56)
    [`test_delay_writes_a_row_of_the_callers_transaction`](tests/outbox/test_task.py#L23-L35)

The text ends in the name of a function, a class, a method (`Class::method`) or a constant of the module that the link leads to.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from lab.spec.quotes import span

_LINK = re.compile(
    r"\[`(?:[\w/.]+\.py::)?(?P<name>\w+(?:::\w+)?)`\]\((?P<path>[\w/.-]+\.py)#L(?P<first>\d+)-L(?P<last>\d+)\)"
)
_TARGET = re.compile(r"\]\((?P<path>[^)#:\s]+)(?=[)#])")


def with_lines(page: str, root: Path) -> str:
    """The page with each of its links to lines as the code is now. Raises `BadQuote`."""

    def anew(found: re.Match[str]) -> str:
        first, last = span(root, found["path"], found["name"].replace("::", "."))
        return found[0].rpartition("#")[0] + f"#L{first}-L{last})"

    return _LINK.sub(anew, page)


def astray(page: str, root: Path) -> list[str]:
    """The links of a page whose lines have nothing of what their text names. Raises `BadQuote`."""

    def misses(found: re.Match[str]) -> bool:
        first, last = span(root, found["path"], found["name"].replace("::", "."))
        return int(found["last"]) < first or int(found["first"]) > last

    return [found[0] for found in _LINK.finditer(page) if misses(found)]


def moved(text: str, *, into: str) -> str:
    """A text of the repository's root, with its links as a page in the folder `into` has to write them."""

    def anew(found: re.Match[str]) -> str:
        return f"]({posixpath.relpath(found['path'], into)}"

    return _TARGET.sub(anew, text)


def patterns_page(readme: str) -> str:
    """docs/patterns.md: the README's table of patterns, for the site, which does not have the README."""
    section = readme.split("\n## Patterns\n", 1)[1].split("\n## ", 1)[0]
    return f"# Patterns\n{moved(section, into='docs').rstrip()}\n"
