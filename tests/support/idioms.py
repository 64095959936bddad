"""Tasks as projects have them that never saw the outbox: bases of their own, classes, and a `__call__`."""

from __future__ import annotations

from typing import Any

from celery import Task, current_app, shared_task
from celery.contrib.django.task import DjangoTask

from tests.support import effects


class OwnBase(Task):
    """A base class that changes what is sent and what a failure is, as many projects have one."""

    abstract = True
    autoretry_for = (ConnectionError,)
    max_retries = 1
    retry_backoff = False

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        headers = {**(options.pop("headers", None) or {}), "tenant": "acme"}
        return super().apply_async(args, kwargs, headers=headers, **options)

    def on_failure(self, exc: Exception, task_id: str, *args: Any) -> None:
        effects.add(f"on_failure {exc}")


class DjangoBase(DjangoTask):
    abstract = True


class SurroundingBase(Task):
    """Its `__call__` does something around each run, and passes the call on."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        effects.add("around")
        return super().__call__(*args, **kwargs)


class ReplacingBase(Task):
    """Its `__call__` runs the body itself, as in the pages about Flask's application context."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        effects.add("instead")
        return self.run(*args, **kwargs)


@shared_task(base=OwnBase)
def own_base(name: str) -> str:
    effects.add(name)
    return name


@shared_task(base=OwnBase)
def own_base_unavailable(name: str) -> None:
    effects.add(name)
    raise ConnectionError("unavailable")


@shared_task(base=DjangoBase)
def django_base(name: str) -> None:
    effects.add(name)


@shared_task(base=SurroundingBase, bind=True, max_retries=1)
def surrounded(self: Any, name: str, again: bool = False) -> None:
    effects.add(name)
    if again and not self.request.retries:
        raise self.retry(countdown=1)


@shared_task(base=ReplacingBase)
def replaced(name: str) -> None:
    effects.add(name)


@shared_task
def takes(*args: Any, **kwargs: Any) -> None:
    """Leaves what it was called with."""
    effects.add(repr((args, kwargs)))


@shared_task(ignore_result=False)
def answers(name: str, fail: bool = False) -> dict[str, int]:
    """A task that keeps its value."""
    effects.add(name)
    if fail:
        raise LookupError("no answer")
    return {"answer": 42}


@shared_task(autoretry_for=(ConnectionError,), max_retries=2)
def fails_at_first(name: str) -> str:
    effects.add(name)
    if effects.count(name) < 3:
        raise ConnectionError("again")
    return name


@shared_task(bind=True)
def replaces_itself(self: Any, name: str) -> None:
    raise self.replace(takes.si(name))


class ClassBased(Task):
    name = "tests.support.idioms.class_based"

    def run(self, name: str) -> None:
        effects.add(name)


class Registered(ClassBased):
    name = "tests.support.idioms.registered"


class_based = current_app.register_task(ClassBased())
registered = Registered()
current_app.tasks.register(registered)
# As Celery's `finalize` does for what is registered before it.
registered.bind(current_app)
