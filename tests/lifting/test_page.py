"""docs/lifting.md can be followed: every block says what it is, and names what is there."""

from __future__ import annotations

import re

import pytest

from lab.stack.stack import ROOT
from tests.lifting.page import sections

COPIED = re.compile(r"\$HOLDFAST/(\S+)")


def test_every_block_says_what_to_do_and_copies_what_exists() -> None:
    commands = [step.text for steps in sections().values() for step in steps if step.kind == "commands"]
    copied = [path for text in commands for path in COPIED.findall(text)]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_a_block_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="line 3"):
        sections("## A\n\n```python\nINSTALLED_APPS += ['shop']\n```\n")


def test_the_readme_leads_to_it() -> None:
    assert "(docs/lifting.md)" in (ROOT / "README.md").read_text()
