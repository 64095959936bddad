"""From here on, what a web process of the release before inserts is a row of the app `idempotency` too. In milliseconds.

Such processes are at work beside new ones until the last is replaced. A key that a new one has answered is not in their
table: the mirrored row would be the second of its key, and the order of the old process is rolled back. It answers 503, and
the client, which repeats, meets a new process in the end. The view says what the row of a key becomes; 0009 moves by it
what was there before. A later release drops the table, with the trigger and the view.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0007_nothing_guessed_in_an_import'),
        ('idempotency', '0001_initial'),
    ]

    operations = [
        # No model deletes these rows any more: they must not hold an order or an API key.
        migrations.AlterField(
            model_name='idempotencyrecord',
            name='order',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.CASCADE, to='orders.order'),
        ),
        migrations.AlterField(
            model_name='idempotencyrecord',
            name='api_key',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to='orders.apikey'),
        ),
        migrations.RunSQL(
            r"""
            CREATE VIEW orders_idempotency_moved AS SELECT
                id,
                -- Without a customer: another API key of the customer has the same key. It is found by its own API key.
                coalesce('customer-' || customer_id, 'api-key-' || api_key_id) AS scope,
                coalesce('api-key-' || api_key_id, '') AS client,
                -- An early release stored a quoted key with its quotation marks.
                CASE WHEN key ~ '^"([^"\\]|\\["\\])+"$'
                    THEN regexp_replace(substr(key, 2, length(key) - 2), '\\(.)', '\1', 'g') ELSE key END AS key,
                body_hash,
                202 AS status,
                jsonb_build_object(
                    'Content-Type', 'application/json; charset=utf-8', 'Location', '/api/orders/' || order_id
                ) AS headers,
                answer AS body,
                created_at
            FROM orders_idempotencyrecord
            WHERE customer_id IS NOT NULL OR api_key_id IS NOT NULL;

            CREATE FUNCTION orders_idempotency_mirror() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO idempotency_record (scope, client, key, body_hash, status, headers, body, created_at)
                SELECT scope, client, key, body_hash, status, headers, body, created_at
                FROM orders_idempotency_moved WHERE id = NEW.id;
                RETURN NULL;
            EXCEPTION WHEN unique_violation THEN
                -- An error that passes, for which the client is told to come again.
                RAISE EXCEPTION 'this Idempotency-Key was answered by the next release'
                    USING ERRCODE = 'serialization_failure';
            END $$;
            CREATE TRIGGER orders_idempotency_mirror AFTER INSERT ON orders_idempotencyrecord
                FOR EACH ROW EXECUTE FUNCTION orders_idempotency_mirror();
            """,
            r"""
            DROP TRIGGER orders_idempotency_mirror ON orders_idempotencyrecord;
            DROP FUNCTION orders_idempotency_mirror();
            DROP VIEW orders_idempotency_moved;

            DELETE FROM orders_idempotencyrecord AS record
            WHERE NOT EXISTS (SELECT 1 FROM orders_order WHERE orders_order.id = record.order_id);
            UPDATE orders_idempotencyrecord AS record SET api_key_id = NULL
            WHERE NOT EXISTS (SELECT 1 FROM orders_apikey WHERE orders_apikey.id = record.api_key_id);
            INSERT INTO orders_idempotencyrecord
                (customer_id, api_key_id, key, body_hash, order_id, answer, created_at)
            SELECT orders_order.customer_id, orders_apikey.id, record.key, body_hash, orders_order.id, body, record.created_at
            FROM idempotency_record AS record
            JOIN orders_order ON orders_order.id = substring(headers->>'Location' FROM '/orders/(\d+)$')::bigint
            LEFT JOIN orders_apikey ON client = 'api-key-' || orders_apikey.id
            WHERE scope = 'customer-' || orders_order.customer_id
            ON CONFLICT DO NOTHING;
            """,
        ),
    ]
