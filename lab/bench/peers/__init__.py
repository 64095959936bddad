"""What Holdfast is measured against, each run as its own documentation says. Installed by requirements-bench.txt."""
