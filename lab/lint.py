"""The part of `make lint` that needs a database or settings: mypy's Django plugin, import rules, migrations, checks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.stack import Stack, StackError
from lab.stack.stack import ROOT

BIN = Path(sys.executable).parent

# What a deployment sets, so that `check --deploy` judges what would run there.
PRODUCTION = {
    "SECURE": "1",
    "DEBUG": "0",
    "ALLOWED_HOSTS": "shop.example",
    "STRIPE_API_BASE": "https://api.stripe.com",
    "STRIPE_API_KEY": "sk_live_not_a_key",
    "WEBHOOKS_ALLOW_PRIVATE": "0",
    "DEFAULT_FROM_EMAIL": "orders@shop.test",
    "PASSWORD_RESET_URL": "https://shop.example/reset/{uid}/{token}/",
    "METRICS_TOKEN": "not a token",
}

STEPS: tuple[tuple[str, list[str], dict[str, str]], ...] = (
    ("mypy", [str(BIN / "mypy")], {}),
    ("import rules", [str(BIN / "lint-imports"), "--no-cache"], {}),
    ("migrations are complete", [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"], {}),
    (
        "deployment checks",
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        PRODUCTION,
    ),
)


def main() -> int:
    """Run every step, even after one failed. Returns 0 only if all passed."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="holdfast-lint-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with Stack(directory, title="make lint", env_file=None, durable=False) as stack:
            for title, command, extra in STEPS:
                print(f"== {title}", flush=True)
                environment = {**os.environ, **stack.environment, **extra}
                if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
                    failed.append(title)
    if failed:
        print(f"lint: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as problem:
        sys.exit(f"lint: {problem}")
