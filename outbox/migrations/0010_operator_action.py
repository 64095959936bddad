from django.db import migrations, models

import outbox.models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0009_paused_task"),
    ]

    operations = [
        migrations.CreateModel(
            name="OperatorAction",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_default=outbox.models.ClockTimestamp())),
                ("actor", models.TextField(blank=True)),
                (
                    "verb",
                    models.TextField(choices=[("pause", "Pause"), ("resume", "Resume"), ("run now", "Run Now")]),
                ),
                ("target", models.TextField(help_text="a queue, a task, or how messages were chosen")),
                ("messages", models.IntegerField(help_text="chosen to run now", null=True)),
                ("reason", models.TextField(blank=True)),
            ],
            options={
                "verbose_name": "operator's action",
                "ordering": ("-id",),
            },
        ),
    ]
