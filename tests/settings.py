"""Settings of the test run: the production settings, the tests' own tasks and cheap password hashing."""

import json
import os

from config.settings import *  # noqa: F403

CELERY_IMPORTS = ["tests.support.tasks", "tests.support.sabotage"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
RETRY_SCALE = 0.01
RETRY_MINIMUM = 0
WEBHOOKS_ALLOW_PRIVATE = True

# How long the parent waits for a dead child's result; the default of 10 s is for results that travel far.
CELERY_WORKER_LOST_WAIT = float(os.environ.get("HOLDFAST_TEST_LOST_WAIT", "0.5"))

# Celery sleeps this time to its end, whatever ends meanwhile.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 2

# For the test of real beats: a schedule whose slots come quickly.
CELERY_BEAT_SCHEDULE = (
    {"tick": {"task": "tests.support.tasks.note", "args": ["tick"], "schedule": 1.0}}
    if os.environ.get("HOLDFAST_TEST_TICK")
    else {}
)

# For tests that need a broker's connection to lose its patience sooner, in a process of its own.
CELERY_BROKER_TRANSPORT_OPTIONS |= json.loads(os.environ.get("HOLDFAST_TEST_TRANSPORT", "{}"))  # noqa: F405
