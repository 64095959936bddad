"""`LetterEvent` is called `DeadLetterEvent`. Table and column keep their names, so that no statement changes the database."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('dlq', '0006_about'),
    ]

    operations = [
        migrations.AlterModelTable(name='letterevent', table='dlq_letterevent'),
        migrations.RenameModel(old_name='LetterEvent', new_name='DeadLetterEvent'),
        migrations.AlterField(
            model_name='deadletterevent',
            name='letter',
            field=models.ForeignKey(db_column='letter_id', on_delete=models.deletion.CASCADE, related_name='events', to='dlq.deadletter'),
        ),
        migrations.RenameField(model_name='deadletterevent', old_name='letter', new_name='dead_letter'),
    ]
