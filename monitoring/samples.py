"""Samples: a few figures four times a minute, kept for a day, for the charts of the control room.

Beat takes them, in a thread of its own and not as a task: while the relay, the broker or the workers are down a task would
not run, and those are the hours that a chart is looked at for. One tick has one row, so that two beats take it once.

What a sample holds comes from `MONITORING_SERIES`: source -> dotted path of a callable that returns {series: number}. A
series whose name ends in `_total` only grows, and is drawn as a rate; every other one is drawn as it is. A source that fails
is left out of the sample: a gap in a chart, and not a zero.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from django.db import Error, connection
from django.utils.module_loading import import_string

from monitoring import conf
from monitoring.models import Sample

log = logging.getLogger(__name__)

#: Seconds from one sample to the next.
EVERY_S = 15
#: How many are kept: a day.
KEPT = 24 * 3600 // EVERY_S
TOTAL = "_total"
#: The series of what was completed, and how many seconds of it say what is usual: a shift of somebody's work.
DONE = "messages_done_total"
USUAL_S = 3 * 3600


def take() -> float:
    """Take the sample of this tick, unless it has one, and remove those that are too old.

    Returns the seconds to the middle of the next tick, by the database's clock. Raises Django's database errors.
    """
    figures: dict[str, float] = {}
    for name, path in conf.series().items():
        try:
            figures |= import_string(path)()
        except Exception as error:
            log.warning("The sample has no figures of %s: %s", name, error)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH clock AS (SELECT extract(epoch FROM clock_timestamp())::float8 AS at),
            this AS (SELECT floor(at / %(every)s)::bigint * %(every)s AS tick FROM clock),
            pruned AS (DELETE FROM monitoring_sample WHERE tick <= (SELECT tick FROM this) - %(kept)s),
            taken AS (INSERT INTO monitoring_sample (tick, figures) SELECT tick, %(figures)s FROM this
                      ON CONFLICT DO NOTHING)
            SELECT tick + %(every)s * 1.5 - at FROM this, clock
            """,
            {"every": EVERY_S, "kept": KEPT * EVERY_S, "figures": json.dumps(figures)},
        )
        return float(cursor.fetchone()[0])


def begin(**_: Any) -> None:
    """Take samples from now on, in a thread; the receiver of `beat_init`. Does nothing without `MONITORING_SERIES`."""
    if conf.series():
        threading.Thread(
            target=run, args=(threading.Event(),), name="monitoring-samples", daemon=True
        ).start()


def run(stop: threading.Event) -> None:
    """Take a sample each tick until `stop` is set; waits out the loss of the database."""
    wait_s = 0.0
    while not stop.wait(wait_s):
        try:
            wait_s = take()
        except Error as error:
            log.warning("No sample was taken: %s", str(error).strip().partition("\n")[0])
            wait_s = EVERY_S
        finally:
            # Four times a minute a new connection costs less than one that is held.
            connection.close()


def since(seconds: int) -> list[tuple[int, Mapping[str, float]]]:
    """Tick and figures of the samples of the last `seconds`, oldest first."""
    newest = Sample.objects.order_by("-tick").values_list("tick", flat=True).first() or 0
    return list(
        Sample.objects.filter(tick__gt=newest - seconds).order_by("tick").values_list("tick", "figures")
    )


def usual_per_minute() -> float:
    """What was completed a minute in the last `USUAL_S` seconds, of which the samples must cover a third; else 0."""
    if not conf.series():
        return 0.0
    with connection.cursor() as cursor:
        # Two looks into the primary key. The series may begin anew, with the rows that it counts.
        cursor.execute(
            """
            WITH known AS (SELECT tick, (figures ->> %(series)s)::float8 AS done FROM monitoring_sample
                           WHERE figures ? %(series)s
                             AND tick > (SELECT extract(epoch FROM clock_timestamp())) - %(usual)s),
            first AS (SELECT * FROM known ORDER BY tick LIMIT 1), last AS (SELECT * FROM known ORDER BY tick DESC LIMIT 1)
            SELECT greatest(0, last.done - first.done) * 60 / (last.tick - first.tick) FROM first, last
            WHERE last.tick - first.tick > %(usual)s / 3
            """,
            {"series": DONE, "usual": USUAL_S},
        )
        found = cursor.fetchone()
        return float(found[0]) if found else 0.0
