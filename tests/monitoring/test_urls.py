import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_an_operators_address_is_only_read(path: str) -> None:
    # Checked like a browser's request: a 403 for lack of a token would hide the 405.
    client = Client(enforce_csrf_checks=True)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = client.generic(method, path)
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
    assert client.get(path).status_code == client.head(path).status_code == 200
