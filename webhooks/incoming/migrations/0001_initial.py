from django.db import migrations, models


class CreateUnlessThere(migrations.CreateModel):
    """The table of a model, which an earlier release may have created in another app. Backwards it stays, with its rows."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        if table not in schema_editor.connection.introspection.table_names():
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label, schema_editor, from_state, to_state):
        pass


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        CreateUnlessThere(
            name='IncomingEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(default='gateway', max_length=50)),
                ('event_id', models.CharField(max_length=255)),
                ('event_type', models.CharField(max_length=255)),
                ('payload', models.JSONField()),
                ('received_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'db_table': 'webhooks_incomingevent',
                'constraints': [models.UniqueConstraint(fields=('provider', 'event_id'), name='webhooks_one_row_per_incoming_event')],
            },
        ),
    ]
