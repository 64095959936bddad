from django.db import migrations, models

import outbox.models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0008_pause"),
    ]

    operations = [
        migrations.CreateModel(
            name="PausedTask",
            fields=[
                ("task", models.TextField(primary_key=True, serialize=False)),
                ("paused_by", models.TextField(blank=True, help_text="the operator; empty: it was resumed")),
                ("reason", models.TextField(blank=True)),
                ("until", models.DateTimeField(help_text="from then on its messages are scheduled", unique=True)),
                ("since", models.DateTimeField(db_default=outbox.models.ClockTimestamp())),
            ],
        ),
    ]
