from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0009_answers_of_earlier_keys")]

    operations = [
        migrations.AlterModelOptions(
            name="order",
            options={"permissions": [("view_journey", "Can see the journey of an order")]},
        ),
    ]
