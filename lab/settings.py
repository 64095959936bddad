"""The application's own settings for a demo of one minute: fixed schedules of hours end at what a demo can wait for.

RETRY_SCALE alone does not do it: the step of half an hour would still be a minute and a half, and of a hundred orders
that all fail at 30 % two or three come so far. How often a task is retried stays as it is.
"""

from config.settings import *  # noqa: F403

#: Seconds of the longest step, before RETRY_SCALE.
LONGEST_STEP_S = 60

CELERY_TASK_ANNOTATIONS = {
    "webhooks.tasks.deliver": {"retry_schedule": (1, 2, 5, 15, LONGEST_STEP_S)},
    "orders.tasks.sync_to_crm": {"retry_schedule": (LONGEST_STEP_S,)},
}
