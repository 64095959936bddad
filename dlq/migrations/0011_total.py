from django.db import migrations


class Migration(migrations.Migration):
    """The model `Tally` is named `Total`; in the database nothing changes."""

    dependencies = [
        ("dlq", "0010_permission_for_export"),
    ]

    operations = [
        migrations.AlterModelTable(name="tally", table="dlq_tally"),
        migrations.RenameModel(old_name="Tally", new_name="Total"),
    ]
