from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('outbox', '0005_unusable_queue'),
    ]

    operations = [
        migrations.AddField(
            model_name='worker',
            name='role',
            field=models.TextField(
                choices=[('worker', 'Worker'), ('relay', 'Relay'), ('beat', 'Beat')], db_default='worker'
            ),
        ),
    ]
