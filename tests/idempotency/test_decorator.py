"""A plain Django view under `@idempotent`: one key is one effect and one answer."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.views.decorators.csrf import csrf_exempt
from pytest_mock import MockerFixture

from idempotency.decorator import idempotent
from idempotency.models import Record

View = Callable[..., HttpResponse]
once = idempotent(scope=lambda request: request.headers.get("X-User", "ada"))
pytestmark = pytest.mark.django_db


def create(request: HttpRequest, prefix: str = "group") -> HttpResponse:
    """The view under test: one effect, and an answer that tells it from every other one."""
    group = Group.objects.create(name=f"{prefix} {Group.objects.count()} {threading.get_ident()}")
    return JsonResponse({"id": group.pk}, status=201, headers={"Location": f"/groups/{group.pk}"})


def post(view: View, body: Any = "{}", *, key: str | None = "key-1", path: str = "/", **headers: str) -> Any:
    given = headers if key is None else {"Idempotency-Key": key, **headers}
    request = RequestFactory().post(path, body, content_type="application/json", headers=given)
    request.user = AnonymousUser()
    return view(request)


def problem(answer: HttpResponse, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    document: dict[str, Any] = json.loads(answer.content)
    assert set(document) == {"title", "status", "detail"}
    assert document["status"] == status
    return document


def test_a_repeated_request_has_one_effect_and_is_answered_the_same() -> None:
    first, again = post(once(create)), post(once(create))
    assert (again.status_code, again.content, again["Location"]) == (201, first.content, first["Location"])
    assert (again["Idempotent-Replayed"], "Idempotent-Replayed" in first) == ("true", False)
    assert Group.objects.count() == Record.objects.count() == 1


def test_a_quoted_and_a_bare_key_are_the_same_key() -> None:
    assert post(once(create), key='"a, b"').content == post(once(create), key='"a, b"').content
    assert post(once(create), key='"abc"').content == post(once(create), key="abc").content


@pytest.mark.parametrize("key", [None, "", "a,b", "x" * 256])
def test_without_a_usable_key_the_answer_is_400_and_says_why(key: str | None) -> None:
    assert problem(post(once(create), key=key), 400)["detail"].startswith("The Idempotency-Key must be ")
    assert not Group.objects.exists()


@pytest.mark.parametrize("other", [{"body": '{"a": 1}'}, {"path": "/other"}, {"path": "/?page=2"}])
def test_the_key_of_another_request_is_refused(other: dict[str, str]) -> None:
    post(once(create))
    assert problem(post(once(create), **other), 422)
    assert Group.objects.count() == 1


def test_two_scopes_may_use_the_same_key() -> None:
    assert post(once(create)).content != post(once(create), **{"X-User": "bob"}).content


def test_a_client_that_acts_in_several_scopes_uses_its_key_once() -> None:
    of_platform = idempotent(
        scope=lambda request: request.headers["X-User"], client=lambda request: "platform"
    )
    first = post(of_platform(create), **{"X-User": "ada"})
    # The same body in another scope is another request.
    assert problem(post(of_platform(create), **{"X-User": "bob"}), 422)
    # In its own scope the answer is the scope's, whichever client asks.
    assert post(once(create), **{"X-User": "ada"}).content == first.content
    assert Group.objects.count() == 1


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 503])
def test_an_error_is_not_kept_and_its_effects_are_rolled_back(status: int) -> None:
    def refuses(request: HttpRequest) -> HttpResponse:
        create(request)
        return HttpResponse("no", status=status)

    assert post(once(refuses)).status_code == status
    assert not Group.objects.exists()
    assert post(once(create)).status_code == 201


@pytest.mark.parametrize("error", [Http404, RuntimeError, KeyboardInterrupt])
def test_an_exception_between_effect_and_answer_leaves_the_key_free(error: type[BaseException]) -> None:
    def crashes(request: HttpRequest) -> HttpResponse:
        create(request)
        raise error

    with pytest.raises(error):
        post(once(crashes))
    assert not Group.objects.exists()
    assert post(once(create)).status_code == 201


def test_when_the_answer_cannot_be_kept_the_effect_is_rolled_back(mocker: MockerFixture) -> None:
    mocker.patch.object(Record.objects, "create", side_effect=RuntimeError("no disk"))
    with pytest.raises(RuntimeError):
        post(once(create))
    assert not Group.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_session_killed_before_its_answer_leaves_the_key_free() -> None:
    """After its effect."""

    def killed(request: HttpRequest) -> HttpResponse:
        answer = create(request)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((backend,),) = cursor.fetchall()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_kill, backend).result(30)
        return answer

    with pytest.raises(Exception, match=r"terminat|closed"):
        post(once(killed))
    connection.close()
    assert not Group.objects.exists()
    assert post(once(create)).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_duplicates_at_once_have_one_effect() -> None:
    together = threading.Barrier(8)

    def send(_: int) -> Any:
        try:
            together.wait(10)
            return post(once(create))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    created = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.content for answer in created}) == Group.objects.count() == 1
    for answer in answers:
        if answer not in created:
            problem(answer, 409)
            assert answer["Retry-After"] == "1"


@pytest.mark.django_db(transaction=True)
def test_a_duplicate_of_a_request_in_flight_is_a_409() -> None:
    """Sent again when the first has ended, it gets the answer of the first."""
    in_flight, finish = threading.Event(), threading.Event()

    def slowly(request: HttpRequest) -> HttpResponse:
        in_flight.set()
        assert finish.wait(30)
        return create(request)

    def first() -> Any:
        try:
            return post(once(slowly))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(first)
        assert in_flight.wait(30)
        meanwhile, other = post(once(create)), post(once(create), key="key-2")
        finish.set()
        answered = answer.result(30)
    assert problem(meanwhile, 409)
    assert other.status_code == 201
    assert post(once(create)).content == answered.content
    assert Group.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_repeated_request_that_was_answered_is_never_in_flight() -> None:
    """What was answered is read without the lock: many repetitions at once are all answered."""
    first, together = post(once(create)), threading.Barrier(8)

    def again(_: int) -> bytes:
        try:
            together.wait(10)
            content: bytes = post(once(create)).content
            return content
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(again, range(8))) == {first.content}


def test_inside_a_transaction_of_the_request_an_error_is_rolled_back_too() -> None:
    """As ATOMIC_REQUESTS opens it."""

    def refuses(request: HttpRequest) -> HttpResponse:
        create(request)
        return HttpResponse(status=422)

    with transaction.atomic():
        post(once(refuses))
        Group.objects.create(name="of the request")
    assert Group.objects.get().name == "of the request"


def test_a_safe_method_needs_no_key() -> None:
    assert once(create)(RequestFactory().get("/")).status_code == 201
    assert not Record.objects.exists()


def test_arguments_of_the_url_and_marks_of_other_decorators_are_passed_on() -> None:
    view = csrf_exempt(create)
    assert once(view).csrf_exempt
    assert login_required(once(view)).csrf_exempt
    request = RequestFactory().post("/", headers={"Idempotency-Key": "key-1"})
    once(view)(request, prefix="of the url")
    assert Group.objects.get().name.startswith("of the url")


def test_a_template_is_rendered_before_it_is_kept() -> None:
    def page(request: HttpRequest) -> HttpResponse:
        return TemplateResponse(request, "admin/404.html", {"title": "Kept"})

    first, again = post(once(page)), post(once(page))
    assert b"Kept" in first.content
    assert again.content == first.content


def test_an_answer_that_is_streamed_is_refused_and_the_effect_rolled_back() -> None:
    def streams(request: HttpRequest) -> Any:
        create(request)
        return StreamingHttpResponse(["a"])

    with pytest.raises(TypeError, match="streamed"):
        post(once(streams))
    assert not Group.objects.exists()


def test_an_asynchronous_view_is_refused_when_it_is_decorated() -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    with pytest.raises(TypeError, match="asynchronous"):
        once(view)  # type: ignore[arg-type]


def _kill(backend: int) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [backend])
    finally:
        connection.close()
