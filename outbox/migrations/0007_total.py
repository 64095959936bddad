from django.db import migrations, models


class Migration(migrations.Migration):
    """The model `Tally` is named `Total`; in the database nothing changes."""

    dependencies = [
        ("outbox", "0006_worker_role"),
    ]

    operations = [
        migrations.AlterModelTable(name="tally", table="outbox_tally"),
        migrations.RenameModel(old_name="Tally", new_name="Total"),
        migrations.AlterField(
            model_name="total",
            name="bounds_kept",
            field=models.IntegerField(help_text="how many of the upper bounds in totals.BUCKETS these messages kept"),
        ),
    ]
