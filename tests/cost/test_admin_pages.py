"""What every page of the admin costs, and that none costs more for more rows."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse

from tests.cost.counting import Cost, counting
from tests.cost.rows import make
from tests.cost.table import compare

pytestmark = pytest.mark.django_db(transaction=True)

MANY = 10


def test_admin_pages_cost_what_docs_say_with_one_row_and_ten(clean: None, admin_client: Client) -> None:
    registered = [*admin.site._registry]
    first = {model: model._default_manager.first() or make(model, 1) for model in registered}
    with_one = {name: _cost(admin_client, path) for name, path in _pages(first).items()}
    for model in registered:
        for number in range(model._default_manager.count() + 1, MANY + 1):
            make(model, number)
    for model in registered:
        for inline in admin.site._registry[model].inlines:
            _fill(inline.model, first[model])
    with_many = {name: _cost(admin_client, path) for name, path in _pages(first).items()}
    more = {name: (one, with_many[name]) for name, one in with_one.items() if with_many[name] != one}
    assert not more, f"costs more with {MANY} rows than with one: {more}"
    compare("Admin pages", with_one)


def _pages(first: dict[type[models.Model], models.Model]) -> dict[str, str]:
    """Name -> address of the list and the row of every model, and of what an app adds."""
    pages = {
        "index": reverse("admin:index"),
        "dead letters by problem": reverse("admin:dlq_deadletter_groups"),
    }
    for model, row in first.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages[f"{model._meta.label} list"] = reverse(f"{name}_changelist") + (
            "?all=" if model._meta.label == "dlq.DeadLetter" else ""
        )
        pages[f"{model._meta.label} row"] = reverse(f"{name}_change", args=[row.pk])
    pages["dlq.DeadLetter list"] += "?all="  # asked for none in particular, it leads to the groups
    return pages


def _cost(client: Client, path: str) -> Cost:
    assert client.get(path).status_code == 200, path  # what a process looks up once is known from here on
    with counting() as cost:
        client.get(path)
    return cost


def _fill(inline: type[models.Model], parent: models.Model) -> None:
    """Rows that the page of `parent` shows below its own, each with another row of what it refers to besides."""
    links = [field for field in inline._meta.concrete_fields if isinstance(field, models.ForeignKey)]
    for number in range(1, MANY + 1):
        given = {
            link.name: parent
            if isinstance(parent, link.related_model)
            else link.related_model._default_manager.order_by("pk")[number - 1]
            for link in links
        }
        make(inline, number, **given)
