"""The column, in milliseconds and without a pass over the table.

Web processes of the release before may be at work beside it: what they insert is given its customer by a trigger, so that
from here on a retry under another API key finds it. A later release drops the trigger.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0003_unsold_orders'),
    ]

    operations = [
        migrations.AddField(
            model_name='idempotencyrecord',
            name='customer',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='orders.customer'),
        ),
        migrations.AlterField(
            model_name='idempotencyrecord',
            name='api_key',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to='orders.apikey'),
        ),
        migrations.RunSQL(
            """
            CREATE FUNCTION orders_idempotency_customer() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                NEW.customer_id := (SELECT customer_id FROM orders_order WHERE id = NEW.order_id);
                RETURN NEW;
            END $$;
            CREATE TRIGGER orders_idempotency_customer BEFORE INSERT ON orders_idempotencyrecord
                FOR EACH ROW WHEN (NEW.customer_id IS NULL) EXECUTE FUNCTION orders_idempotency_customer();
            """,
            """
            DROP TRIGGER orders_idempotency_customer ON orders_idempotencyrecord;
            DROP FUNCTION orders_idempotency_customer();
            """,
        ),
    ]
