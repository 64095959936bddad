"""`make docs`, after the pages are built: the site gets a page of each source file that a page names, and links to it.

The pages name files and tests relative to the repository (`outbox/claims.py`, `tests/docs/test_site.py`), which is a
link on no site. Here each such name becomes one, to the lines of what it names.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from functools import partial
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

from lab.spec.quotes import BadQuote, span

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "var" / "site"
#: Where the pages of the source files are, in the site.
CODE = "code"

_LINKED = re.compile(r"<a\b[^>]*>.*?</a>|<pre\b.*?</pre>", re.DOTALL)
#: Above a quote, the name of what is quoted stands behind the file.
_NAMED = re.compile(
    r"<code>(?P<path>[\w.-]+(?:/[\w.-]+)*\.\w+)(?:::(?P<name>[\w:]+))?</code>(?=(?:, (?:in )?<code>(?P<quoted>[\w.]+)</code>:)?)"
)
_HREF = re.compile(r'href="(?P<path>(?:\.\./)+[\w./-]+)(?:#L(?P<line>\d+)[^"]*)?"')


def main() -> int:
    found = link_sources(SITE, ROOT)
    print(f"{SITE.relative_to(ROOT)}/{CODE}: {found} source files")
    return 0


def link_sources(site: Path, root: Path) -> int:
    """Links the names of source files in the pages of a site, and writes a page of each; returns of how many."""
    sources: set[str] = set()
    for page in sorted(site.rglob("*.html")):
        here = page.relative_to(site)
        if here.parts[0] == CODE:
            continue
        before = page.read_text()
        after = _with_links(before, here, root, sources)
        if after != before:
            page.write_text(after)
    for source in sources:
        page = site / CODE / f"{source}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(page_of(root, source))
    return len(sources)


def _with_links(page: str, here: Path, root: Path, sources: set[str]) -> str:
    """The page at `here`: its links that lead out of the site, and the files that it names, lead to pages of `sources`."""

    def target(path: str, line: int | None) -> str:
        sources.add(path)
        there = posixpath.relpath(f"{CODE}/{path}.html", here.parent.as_posix())
        return f"{there}#L-{line}" if line else there

    def named(found: re.Match[str]) -> str:
        path = found["path"]
        if not (root / path).is_file():
            return found[0]
        if path.startswith("docs/") and path.endswith(".md"):
            there = posixpath.relpath(path.removesuffix("md") + "html", f"docs/{here.parent}")
            return f'<a href="{there}">{found[0]}</a>'
        line = _line(root, path, found["name"] or found["quoted"])
        return f'<a href="{target(path, line)}">{found[0]}</a>'

    def leading_out(found: re.Match[str]) -> str:
        # The folder of the pages is beside the sources: `../../outbox/claims.py` of docs/lessons/ is no address of the site.
        path = posixpath.normpath(posixpath.join("docs", here.parent.as_posix(), found["path"]))
        if path.startswith("docs/") or not (root / path).is_file():
            return found[0]
        return f'href="{target(path, int(found["line"]) if found["line"] else None)}"'

    def outside(text: str) -> str:
        return _NAMED.sub(named, text)

    parts, at = list[str](), 0
    for linked in _LINKED.finditer(page):
        parts += [outside(page[at : linked.start()]), _HREF.sub(leading_out, linked[0])]
        at = linked.end()
    return "".join([*parts, outside(page[at:])])


def _line(root: Path, path: str, name: str | None) -> int | None:
    if not name:
        return None
    try:
        return span(root, path, name.replace("::", "."))[0]
    except BadQuote:
        return None


def page_of(root: Path, source: str) -> str:
    """A page of a source file that needs nothing else: numbered lines, each with an address of its own (`#L-12`)."""
    try:
        lexer = get_lexer_for_filename(source)
    except ClassNotFound:
        lexer = TextLexer()
    formatter = partial(HtmlFormatter, linenos="inline", lineanchors="L", anchorlinenos=True, cssclass="code")
    light, dark = formatter(style="default"), formatter(style="monokai")
    body = highlight((root / source).read_text(), lexer, light)
    title = html.escape(source)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>body {{ font: 14px/1.5 sans-serif; margin: 1rem 2rem }} a {{ color: inherit }}\n"
        f".code {{ overflow-x: auto; padding: 0 .5rem }}\n{light.get_style_defs('.code')}\n"
        f"@media (prefers-color-scheme: dark) {{ body {{ background: #272822; color: #eee }}\n"
        f"{dark.get_style_defs('.code')} }}\n</style></head>\n<body><h1>{title}</h1>\n{body}</body></html>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
