import pytest

from tests.lab.sandbox_fixture import RunningSandbox


@pytest.fixture
def hook(sandbox: RunningSandbox) -> str:
    """A merchant's endpoint at the sandbox."""
    return f"{sandbox.url}/merchants/7/webhooks"
