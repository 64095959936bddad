"""The site of the documentation builds strictly: a broken link, anchor or name of the API reference fails it."""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from lab.spec.site import link_sources

ROOT = Path(__file__).resolve().parents[2]


def build(tmp_path: Path, *, added: str = "") -> subprocess.CompletedProcess[str]:
    """As `make docs`, of a copy of the pages, with a line more at the end of one."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    with (tmp_path / "docs" / "glossary.md").open("a") as page:
        page.write(f"\n{added}\n")
    settings = (ROOT / "mkdocs.yml").read_text()
    for here, there in (("site_dir: var/site\n", "site_dir: site\n"), ("paths: [.]\n", f"paths: [{ROOT}]\n")):
        assert here in settings
        settings = settings.replace(here, there)
    (tmp_path / "mkdocs.yml").write_text(settings)
    zensical = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
    return subprocess.run(zensical, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


HREF = re.compile(r'href="([^"#?:]+)(?:#(L-\d+))?[^":]*"')


def test_every_file_that_a_page_names_is_a_link_to_its_source(tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    site = tmp_path / "site"

    assert link_sources(site, ROOT) > 200

    lesson = (site / "lessons" / "retries.html").read_text()
    source = (ROOT / "outbox" / "retry_policy.py").read_text().splitlines()
    line = next(number for number, text in enumerate(source, start=1) if "def delay_s(" in text)
    assert f'<a href="../code/outbox/retry_policy.py.html#L-{line}"><code>outbox/retry_policy.py' in lesson
    broken = [
        (page.relative_to(site).as_posix(), href, anchor)
        for page in site.rglob("*.html")
        if page.name != "404.html" and "code" not in page.relative_to(site).parts
        for href, anchor in HREF.findall(page.read_text())
        if not leads_somewhere(page.parent / href, anchor)
    ]
    assert broken == []


@cache
def leads_somewhere(target: Path, anchor: str) -> bool:
    return target.exists() and (not anchor or f'"{anchor}"' in target.read_text())


def test_the_site_builds_without_a_warning_and_has_the_reference(tmp_path: Path) -> None:
    built = build(tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "outbox.enqueue.enqueue_many" in (tmp_path / "site" / "reference.html").read_text()
    assert (tmp_path / "site" / "promises" / "p2-nothing-is-lost.html").exists()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("[a page](nowhere.md)", "page does not exist"),
        ("[a heading](operations.md#nowhere)", "anchor does not exist"),
        ("::: outbox.nowhere", "Could not collect 'outbox.nowhere'"),
    ],
)
def test_what_leads_nowhere_fails_the_build(broken: str, said: str, tmp_path: Path) -> None:
    built = build(tmp_path, added=broken)
    assert built.returncode != 0
    # The names are broken up by colours.
    assert said in built.stdout + built.stderr


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []
