from django.db import migrations, models

#: The labels under which an old event has been counted so far: what its letter is about now.
FILL = """
    UPDATE dlq_letterevent event SET queue = letter.queue, task = letter.task
    FROM dlq_deadletter letter WHERE letter.id = event.letter_id
"""


class Migration(migrations.Migration):

    dependencies = [
        ('dlq', '0002_tally'),
    ]

    operations = [
        migrations.AddField(
            model_name='letterevent',
            name='queue',
            field=models.CharField(blank=True, db_default='', default='', max_length=255),
        ),
        migrations.AddField(
            model_name='letterevent',
            name='task',
            field=models.CharField(blank=True, db_default='', default='', max_length=255),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
    ]
