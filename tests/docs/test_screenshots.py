"""The pictures of docs/images/, which `python -m lab.screenshots` takes: small, of one width, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lab.screenshots import IMAGES, MAX_BYTES, ROOT, WIDTH

PICTURES = sorted(IMAGES.glob("*"))


def test_there_is_one_of_each_page_that_an_operator_works_with() -> None:
    names = [picture.name for picture in PICTURES]
    assert names == ["control-room.png", "dead-letter-groups.png", "journey.png", "replay.png"]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_small_and_shown_in_readme_and_page(picture: Path) -> None:
    with Image.open(picture) as image:
        assert (image.format, image.mode, image.width) == ("PNG", "P", WIDTH)
    assert picture.stat().st_size <= MAX_BYTES
    assert f"](docs/images/{picture.name})" in (ROOT / "README.md").read_text()
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert f"](images/{picture.name})" in pages
