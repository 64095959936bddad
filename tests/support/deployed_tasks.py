"""Tasks that a deployment changes: processes of the old version have `HOLDFAST_TEST_OLD_VERSION` in their environment."""

from __future__ import annotations

import os

from celery import shared_task

from tests.support import effects


@shared_task
def wrong_type(name: str) -> None:
    len(name, name)  # type: ignore[call-arg]


if os.environ.get("HOLDFAST_TEST_OLD_VERSION"):

    @shared_task
    def changed_by_a_deploy(name: str) -> None:
        effects.add(name)

    @shared_task(transactional=True)
    def changed_by_a_deploy_once(name: str) -> None:
        effects.add(name)

else:

    @shared_task
    def changed_by_a_deploy(name: str, note: str = "") -> None:
        effects.add(name)

    @shared_task(transactional=True)
    def changed_by_a_deploy_once(name: str, note: str = "") -> None:
        effects.add(name)

    @shared_task
    def added_by_a_deploy(name: str) -> None:
        effects.add(name)
