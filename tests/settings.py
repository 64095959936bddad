"""Settings of the test run: the production settings, the tests' own tasks and cheap password hashing."""

import json
import os

from config.settings import *  # noqa: F403

CELERY_IMPORTS = [
    *("tests.support.tasks", "tests.support.retrying_tasks", "tests.support.settling_tasks"),
    *("tests.support.limited_tasks", "tests.support.deployed_tasks"),
    *("tests.support.idioms", "tests.support.sabotage"),
]
# What the tests' outside producers send.
OUTBOX_FOREIGN_TASKS = (
    "tests.support.tasks.always_unavailable",
    "tests.support.tasks.breaks_the_handler",
    "tests.support.tasks.cannot_decode_what_it_fetched",
    "tests.support.tasks.exits",
    "tests.support.tasks.fails_unspeakably",
    "tests.support.tasks.hangs_without_database",
    "tests.support.tasks.kills_its_process",
    "tests.support.tasks.kills_its_process_acknowledged",
    "tests.support.tasks.kills_its_worker",
    "tests.support.tasks.meet",
    "tests.support.tasks.note",
    "tests.support.tasks.out_of_memory",
    "tests.support.tasks.over_the_hard_limit",
    "tests.support.tasks.permanently_wrong",
    "tests.support.retrying_tasks.retries_at_its_end",
    "tests.support.retrying_tasks.retries_itself",
    "tests.support.tasks.slow",
    "tests.support.tasks.unavailable_until_told",
    "tests.support.tasks.until_told",
    "tests.support.tasks.wrong_until_told",
    "tests.support.tasks.wrong_without_database",
)
# Tests ask a worker what it does.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
RETRY_SCALE = 0.01
RETRY_MINIMUM = 0
WEBHOOKS_ALLOW_PRIVATE = True
# Beside most tests runs no relay.
MONITORING_READY_CHECKS = {name: path for name, path in MONITORING_READY_CHECKS.items() if name != "relay"}  # noqa: F405

# How long the parent waits for a dead child's result; the default of 10 s is for results that travel far.
CELERY_WORKER_LOST_WAIT = float(os.environ.get("HOLDFAST_TEST_LOST_WAIT", "0.5"))

# Celery sleeps this time to its end, whatever ends meanwhile.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 2

# For the test of real beats: a schedule whose ticks come quickly.
CELERY_BEAT_SCHEDULE = (
    {"tick": {"task": "tests.support.tasks.note", "args": ["tick"], "schedule": 1.0}}
    if os.environ.get("HOLDFAST_TEST_TICK")
    else {}
)

# For tests of Celery's own settings, in processes of their own.
CELERY_TASK_SOFT_TIME_LIMIT = float(os.environ.get("HOLDFAST_TEST_SOFT_LIMIT", "0")) or None
CELERY_RESULT_BACKEND = os.environ.get("HOLDFAST_TEST_RESULTS")

# For tests that need a broker's connection to lose its patience sooner, in a process of its own.
CELERY_BROKER_TRANSPORT_OPTIONS |= json.loads(os.environ.get("HOLDFAST_TEST_TRANSPORT", "{}"))  # noqa: F405
