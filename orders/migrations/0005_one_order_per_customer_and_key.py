"""The constraint, while orders are taken: its index is built beside them. Repeated after a failure, it begins anew."""

from django.db import migrations, models

NAME = 'orders_idempotency_one_order_per_customer_and_key'


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ('orders', '0004_a_key_belongs_to_its_customer'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(f'DROP INDEX CONCURRENTLY IF EXISTS {NAME}', migrations.RunSQL.noop),
                migrations.RunSQL(
                    f'CREATE UNIQUE INDEX CONCURRENTLY {NAME} ON orders_idempotencyrecord (customer_id, key)',
                    migrations.RunSQL.noop,
                ),
                migrations.RunSQL(
                    f'ALTER TABLE orders_idempotencyrecord ADD CONSTRAINT {NAME} UNIQUE USING INDEX {NAME}',
                    f'ALTER TABLE orders_idempotencyrecord DROP CONSTRAINT {NAME}',
                ),
            ],
            state_operations=[
                migrations.AddConstraint(
                    model_name='idempotencyrecord',
                    constraint=models.UniqueConstraint(fields=('customer', 'key'), name=NAME),
                ),
            ],
        ),
    ]
