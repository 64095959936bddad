"""`python -m lab.bench.plot COST.json PLOT.svg`: the cost of an order by role, a bar a subject. Runs where the peers are."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(data: Path, picture: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    # The same data make the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "holdfast", "svg.fonttype": "none"})
    from matplotlib import pyplot

    cost: dict[str, dict[str, float]] = json.loads(data.read_text())
    subjects = list(cost)
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.6 * len(subjects)), layout="constrained")
    left = [0.0] * len(subjects)
    for role in next(iter(cost.values())):
        if role == "sandbox":
            continue  # the outside world is not what an order costs
        width = [cost[subject][role] for subject in subjects]
        axes.barh(subjects, width, left=left, label=role)
        left = [begin + size for begin, size in zip(left, width, strict=True)]
    for subject, total in zip(subjects, left, strict=True):
        axes.text(total, subject, f" {total:.0f} ms", va="center")
    axes.invert_yaxis()
    axes.set_xlim(0, max(left) * 1.12)
    axes.set_xlabel("CPU time of an order, ms")
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
