"""docs/lifting.md as steps: its code blocks are what a reader copies, and what the tests follow.

The first line of a block says what it is:

- `# path/to/file.py`: the whole file; `# path/to/file.py: add`: these lines go at its end.
- `# python manage.py shell`: Python to be typed there.
- `# a terminal each`: processes that go on running, a command a line.
- every other block in `sh`: commands, to be run in the project's directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "lifting.md"

_HEADING = re.compile(r"^(#{2,3}) (.+)$")
_FENCE = re.compile(r"^```(\w*)$")
_FILE = re.compile(r"^# ([\w./-]+\.(?:py|html))(: add)?$")
_SHELL = "# python manage.py shell"
_TERMINALS = "# a terminal each"


@dataclass(frozen=True)
class Step:
    """One code block. `kind`: file, add, shell, processes, commands; `path` is that of a file."""

    kind: str
    text: str
    line: int
    path: str = ""

    def commands(self) -> list[str]:
        """The lines of a block in `sh`, those with a backslash at their end joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def sections(text: str | None = None) -> dict[str, list[Step]]:
    """Heading -> the steps below it, up to the next heading. Raises ValueError for a block that cannot be followed."""
    found: dict[str, list[Step]] = {}
    heading, language, block, began = "", "", None, 0
    for number, line in enumerate((PAGE.read_text() if text is None else text).splitlines(), start=1):
        fence = _FENCE.match(line)
        if block is None and fence:
            language, block, began = fence[1], [], number
        elif block is not None and line == "```":
            found[heading].append(_step(language, "\n".join(block) + "\n", began))
            block = None
        elif block is not None:
            block.append(line)
        elif title := _HEADING.match(line):
            heading = title[2].replace("`", "")
            if heading in found:
                raise ValueError(f"line {number}: a second section {heading!r}")
            found[heading] = []
    return found


def _step(language: str, text: str, line: int) -> Step:
    first = text.partition("\n")[0]
    if file := _FILE.match(first):
        return Step("add" if file[2] else "file", text, line, file[1])
    if language == "python" and first == _SHELL:
        return Step("shell", text, line)
    if language == "sh":
        return Step("processes" if first == _TERMINALS else "commands", text, line)
    raise ValueError(f"line {line}: the first line of this block does not say what to do with it: {first!r}")
