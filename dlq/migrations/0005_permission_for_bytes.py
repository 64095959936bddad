from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('dlq', '0004_returned'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='deadletter',
            options={
                'ordering': ('-failed_at', '-id'),
                'permissions': (
                    ('replay_deadletter', 'Can replay dead letters'),
                    ('discard_deadletter', 'Can discard dead letters'),
                    ('view_raw_deadletter', 'Can see and download messages as received, secrets included'),
                ),
            },
        ),
    ]
