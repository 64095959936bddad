from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0002_firing_alert'),
    ]

    operations = [
        migrations.AddField(
            model_name='firingalert',
            name='about',
            field=models.JSONField(db_default=[], default=list, help_text='the queues, tasks, ... for which it fires, of a rule that names them'),
        ),
        migrations.AlterField(
            model_name='firingalert',
            name='told',
            field=models.JSONField(default=dict, help_text='channel -> {state: firing or resolved, at: seconds since the epoch, about: what it has named} of its messages'),
        ),
    ]
