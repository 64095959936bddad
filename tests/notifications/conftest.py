import pytest

from notifications.models import EmailTemplate, User


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_user("alice", "alice@example.com", "a long password")


@pytest.fixture
def template(db: None) -> EmailTemplate:
    words = {"subject": "Welcome!", "body": "Hello {{ username }}."}
    return EmailTemplate.objects.update_or_create(name="welcome", defaults=words)[0]
