from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0001_sample'),
    ]

    operations = [
        migrations.CreateModel(
            name='FiringAlert',
            fields=[
                ('name', models.TextField(primary_key=True, serialize=False)),
                ('text', models.TextField()),
                ('value', models.FloatField()),
                ('threshold', models.FloatField()),
                ('since', models.DateTimeField()),
                ('seen_at', models.DateTimeField(help_text='when it was last seen firing, or could not be judged')),
                ('resolved_at', models.DateTimeField(null=True)),
                ('told', models.JSONField(default=dict, help_text='channel -> {state: firing or resolved, at: seconds since the epoch} of its last message')),
            ],
            options={'default_permissions': ()},
        ),
    ]
