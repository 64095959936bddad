"""The folder's promise about itself: a pattern is lifted by copying its file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

PATTERNS = sorted(path.stem for path in Path(settings.BASE_DIR, "resilience").glob("[a-z]*.py"))
ALONE = {"breaker", "retry_after", "connection", "sentinel"}
#: What needs another pattern by its nature.
ALSO = {"circuits": {"breaker"}}
#: What each does in a project that has no Django, where the address of Redis is all that is known.
USES = {
    "connection": "assert connection.get_redis().ping()",
    "ratelimit": """
limited = ratelimit.rate_limited(NAME, per_second=0.01)(lambda: 7)
assert limited() == 7
try: limited()
except ratelimit.RateLimitExceeded as error: assert error.retry_after > 90
else: raise AssertionError
""",
    "locks": "with locks.task_lock('user_id', NAME) as lock: assert lock.fence > 0",
    "dedup": "assert not dedup.is_duplicate(NAME); assert dedup.is_duplicate(NAME)",
    "backpressure": """
queue = backpressure.BoundedQueue(NAME, 1)
queue.push(1)
try: queue.push(2)
except backpressure.QueueFull: queue.obliterate()
else: raise AssertionError
""",
    "breaker": "assert breaker.circuit(5, 30)(lambda: 7)() == 7",
    "circuits": """
circuits.share()
circuit = circuits.breaker.Breaker(1, 30, name=NAME)
try: circuit.call(lambda: 1 / 0)
except ZeroDivisionError: assert circuits.open_in_processes()[NAME] == 1
else: raise AssertionError
""",
    "retry_after": "assert retry_after.parse_retry_after('7') == 7",
    "sentinel": "assert sentinel.split('sentinel://a;sentinel://b') == ['sentinel://a', 'sentinel://b']",
}


@pytest.mark.parametrize("django", ["without", "unconfigured", "with"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_works_in_another_project_by_its_file_alone(
    pattern: str, django: str, name: str, tmp_path
) -> None:
    """Or with the file of the connection beside it."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").touch()
    for file in {pattern} if pattern in ALONE else {pattern, "connection", *ALSO.get(pattern, ())}:
        shutil.copy(Path(settings.BASE_DIR, "resilience", f"{file}.py"), package)
    begin = {
        "without": "import sys; sys.modules['django'] = None",
        "unconfigured": "import django",
        "with": f"from django.conf import settings; settings.configure(REDIS_URL={settings.REDIS_URL!r})",
    }[django]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["REDIS_URL"] = "redis://127.0.0.1:1/0" if django == "with" else settings.REDIS_URL
    result = subprocess.run(
        [sys.executable, "-c", f"{begin}\nfrom theirs import {pattern}\nNAME = {name!r}\n{USES[pattern]}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
