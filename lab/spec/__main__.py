"""`make spec`: writes docs/SPEC.md and the failure tables of the pages from the markers and the last results, every quote of
code in the pages from its file, and the lines that the README's table of patterns links to.

Exit status 1, and nothing is written, when a marker names no promise, a promise has no test, or a quote names no code.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from lab.spec.behaviours import PAGE, behaviours, with_tests
from lab.spec.links import patterns_page, with_lines
from lab.spec.pages import failures_of, page_of, specification, with_table
from lab.spec.quotes import BadQuote, with_failures, with_quotes
from lab.spec.results import RESULTS
from lab.spec.rows import PROMISES, BadMarker, rows

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    try:
        found, described = rows(ROOT), behaviours(ROOT)
        written = {
            page: with_table(page.read_text(), [row for row in found if row.promise == promise])
            for promise in PROMISES
            for page in [page_of(ROOT, promise)]
        }
        written[ROOT / PAGE] = with_tests((ROOT / PAGE).read_text(), described)
        readme = with_lines((ROOT / "README.md").read_text(), ROOT)
        written |= {ROOT / "README.md": readme, ROOT / "docs" / "patterns.md": patterns_page(readme)}
        for page in sorted((ROOT / "docs").rglob("*.md")):
            text = with_failures(written.get(page, page.read_text()), partial(failures_of, found))
            written[page] = with_quotes(text, ROOT)
    except (BadMarker, BadQuote, LookupError) as problem:
        print(f"spec: {problem}", file=sys.stderr)
        return 1
    if unproven := PROMISES.keys() - {row.promise for row in found}:
        print(f"spec: no test proves {', '.join(sorted(unproven))}", file=sys.stderr)
        return 1
    results = json.loads((ROOT / RESULTS).read_text()) if (ROOT / RESULTS).exists() else {}
    written[ROOT / "docs" / "SPEC.md"] = specification(found, described, results)
    for page, text in written.items():
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
    tests = {test for row in found for test in row.tests} | {
        test for proofs in described.values() for test in proofs
    }
    ended = [results[test][0] for test in tests if test in results]
    print(
        f"docs/SPEC.md: {len(found)} sentences, {len(described)} behaviours, {len(tests)} tests: {ended.count('passed')} passed,"
        f" {len(ended) - ended.count('passed')} did not, {len(tests) - len(ended)} not run yet"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
