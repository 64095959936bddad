"""Settings of the test run: the production settings, the tests' own tasks and cheap password hashing."""

from config.settings import *  # noqa: F403

CELERY_IMPORTS = ["tests.support.tasks"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
RETRY_SCALE = 0.01
WEBHOOKS_ALLOW_PRIVATE = True
