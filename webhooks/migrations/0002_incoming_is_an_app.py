"""The table of what comes in is the app `webhooks.incoming`'s: as it is, for old processes and new ones."""

from django.db import migrations


def move_permissions(apps, schema_editor, old='webhooks', new='webhooks_incoming'):
    # What staff may see, and the admin's log, hang on the model's content type.
    types = apps.get_model('contenttypes', 'ContentType').objects.filter(model='incomingevent')
    if not types.filter(app_label=new).exists():
        types.filter(app_label=old).update(app_label=new)


def move_back(apps, schema_editor):
    move_permissions(apps, schema_editor, old='webhooks_incoming', new='webhooks')


class Migration(migrations.Migration):

    dependencies = [
        ('webhooks', '0001_initial'),
        ('contenttypes', '0002_remove_content_type_name'),
    ]
    # Which finds the table, and creates it only where there is none.
    run_before = [('webhooks_incoming', '0001_initial')]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name='IncomingEvent')]),
        migrations.RunPython(move_permissions, move_back),
    ]
