"""The customers of the rows that were there before, batch by batch, each a short transaction of its own.

Of several rows of one customer with one key, which only API keys told apart until now, the oldest becomes the customer's;
the others stay as they are, found by their API key. Repeated after a failure, it goes on.
"""

from django.db import migrations

BATCH = 10_000


def fill(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute('SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM orders_idempotencyrecord')
        first, last = cursor.fetchone()
        for start in range(first, last + 1, BATCH):
            cursor.execute(
                """
                UPDATE orders_idempotencyrecord AS record SET customer_id = oldest.customer_id
                FROM (
                    SELECT DISTINCT ON (orders_order.customer_id, key) record.id, orders_order.customer_id
                    FROM orders_idempotencyrecord AS record JOIN orders_order ON orders_order.id = order_id
                    WHERE record.id >= %(start)s AND record.id < %(end)s AND record.customer_id IS NULL
                      AND NOT EXISTS (
                          SELECT 1 FROM orders_idempotencyrecord AS other
                          WHERE other.customer_id = orders_order.customer_id AND other.key = record.key
                      )
                    ORDER BY orders_order.customer_id, key, record.id
                ) AS oldest
                WHERE record.id = oldest.id
                """,
                {'start': start, 'end': start + BATCH},
            )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('orders', '0005_one_order_per_customer_and_key'),
    ]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
