"""Tasks of a shop as its own people wrote them: Celery's words only, and nothing of any pattern."""

import os
import signal
import time

from celery import Task, current_app, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from shop.models import Effect


def did(name):
    return Effect.objects.create(name=name)


def times(name):
    return Effect.objects.filter(name=name).count()


@shared_task
def note(name):
    did(name)
    return name


@shared_task(autoretry_for=(ConnectionError,), max_retries=5, retry_backoff=1)
def third_time(name):
    """Fails twice."""
    did(f"{name}:run")
    if times(f"{name}:run") < 3:
        raise ConnectionError("the other side is down")
    did(name)


@shared_task(bind=True, max_retries=3)
def retries_by_hand(self, name):
    did(f"{name}:run")
    if times(f"{name}:run") < 2:
        raise self.retry(countdown=0.1)
    did(name)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def killed_once(name):
    """The process of its first run is killed, as the kernel does when memory is short."""
    did(f"{name}:run")
    if times(f"{name}:run") < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    did(name)


@shared_task
def killed_always(name):
    did(f"{name}:run")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(acks_late=True, reject_on_worker_lost=True)
def waits(name):
    """Its first run takes an hour, every other one no time."""
    did(f"{name}:run")
    if times(f"{name}:run") < 2:
        time.sleep(3600)
    did(name)


@shared_task(time_limit=2)
def over_its_time(name):
    did(f"{name}:run")
    if times(f"{name}:run") < 2:
        time.sleep(3600)
    did(name)


@shared_task
def wrong_until_mended(name):
    did(f"{name}:run")
    if not times(f"{name}:mended"):
        raise ValueError(f"{name} is wrong")
    did(name)


class Audited(Task):
    """A base class of the shop's own."""

    abstract = True

    def before_start(self, task_id, args, kwargs):
        did(f"{args[0]}:audited")


@shared_task(base=Audited)
def audited(name):
    did(name)


class AsClass(Task):
    name = "shop.tasks.as_class"

    def run(self, name):
        did(name)


as_class = current_app.register_task(AsClass())


@shared_task(bind=True)
def notes_tenant(self, name):
    did(f"{name}:{self.request.tenant}")


@shared_task
def over_the_soft_limit(name):
    try:
        time.sleep(3600)
    except SoftTimeLimitExceeded:
        did(f"{name}:SoftTimeLimitExceeded")


@shared_task(bind=True)
def retries_elsewhere(self, name):
    raise self.retry(queue="urgent")


@shared_task(bind=True)
def replaces_itself(self, name):
    raise self.replace(note.si(name))


@shared_task
def ignores(name):
    did(f"{name}:run")
    raise Ignore()


@shared_task
def rejects(name):
    did(f"{name}:run")
    raise Reject("not for me", requeue=False)


@shared_task
def typed(name, *values, **named):
    """Notes the types that arrive."""
    did(name)
    did(f"{name}: " + ", ".join(type(value).__name__ for value in (*values, *named.values())))


@shared_task(ignore_result=False)
def answers(name):
    did(name)
    return {"answer": 42}


@shared_task
def out_of_memory(name):
    raise MemoryError
