"""The site of the documentation builds strictly: a broken link, anchor or name of the API reference fails it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
