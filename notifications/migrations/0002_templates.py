"""The mails that the code sends by name. An edited template is left as it is: get_or_create, not update."""

from django.db import migrations

TEMPLATES = {
    "confirmation": (
        "We have your order {{ order_id }}",
        "Hello {{ customer_name }},\n\n"
        "thank you for your order {{ order_id }} over {{ total }}.\n"
        "We will send you a receipt as soon as it is paid.\n",
    ),
    "receipt": (
        "Receipt for your order {{ order_id }}",
        "Hello {{ customer_name }},\n\n"
        "we have received {{ total }} for your order {{ order_id }}.\n"
        "It is on its way to our warehouse.\n",
    ),
    "password_reset": (
        "Set a new password",
        "Hello {{ username }},\n\n"
        "somebody, probably you, asked for a new password. Choose it here:\n\n"
        "{{ link }}\n\n"
        "If it was not you, do nothing: the link works only once and not for long.\n",
    ),
}


def create(apps, schema_editor):
    template = apps.get_model("notifications", "EmailTemplate")
    for name, (subject, body) in TEMPLATES.items():
        template.objects.get_or_create(name=name, defaults={"subject": subject, "body": body})


class Migration(migrations.Migration):
    dependencies = [("notifications", "0001_initial")]

    # Going back removes nothing: the table goes with 0001, and an operator's wording is not ours to delete.
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
