"""The rows that were there before, batch by batch, each a short transaction of its own. Repeated after a failure, it goes on."""

from django.db import migrations

BATCH = 10_000


def move(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute('SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM orders_idempotencyrecord')
        first, last = cursor.fetchone()
        for start in range(first, last + 1, BATCH):
            cursor.execute(
                """
                INSERT INTO idempotency_record (scope, client, key, body_hash, status, headers, body, created_at)
                SELECT scope, client, key, body_hash, status, headers, body, created_at
                FROM orders_idempotency_moved WHERE id >= %s AND id < %s ORDER BY id
                ON CONFLICT DO NOTHING
                """,
                [start, start + BATCH],
            )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('orders', '0008_keys_to_idempotency'),
    ]

    operations = [
        migrations.RunPython(move, migrations.RunPython.noop),
        # The table stays for the release before.
        migrations.SeparateDatabaseAndState(state_operations=[migrations.DeleteModel(name='IdempotencyRecord')]),
    ]
