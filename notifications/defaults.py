"""The templates of the emails that the code sends by name.

Made after every `migrate` and not by a migration, so that they exist whenever the tables do: a migration
would not run again for a database that was flushed, or whose `receipt` somebody deleted. What exists is left
as it was edited.
"""

from typing import Any

from django.apps import apps

TEMPLATES = {
    "confirmation": (
        "We have your order {{ order_id }}",
        "Hello {{ customer_name }},\n\n"
        "thank you for your order {{ order_id }} for {{ total }}.\n"
        "We will send you a receipt as soon as it is paid.\n",
    ),
    "receipt": (
        "Receipt for your order {{ order_id }}",
        "Hello {{ customer_name }},\n\n"
        "we have received {{ total }} for your order {{ order_id }}.\n"
        "It is on its way to our warehouse.\n",
    ),
    "welcome": (
        "Welcome",
        "Hello {{ username }},\n\nyour account is ready. Sign in with this email address.\n",
    ),
    "password_reset": (
        "Set a new password",
        "Hello {{ username }},\n\n"
        "somebody, probably you, asked for a new password. Choose it here:\n\n"
        "{{ link }}\n\n"
        "If it was not you, ignore this email: the link works only once, and expires soon.\n",
    ),
}


def create_templates(*, using: str, **signal: Any) -> None:
    """Receiver of `post_migrate`: create the templates that are missing in the database `using`."""
    model = apps.get_model("notifications", "EmailTemplate")
    model.objects.using(using).bulk_create(
        [model(name=name, subject=subject, body=body) for name, (subject, body) in TEMPLATES.items()],
        ignore_conflicts=True,
    )
