"""The `Idempotency-Key` of an HTTP request: the same key with the same body has one effect and is answered the same.

A POST whose answer is lost has to be sent again, and only the server can know that it is the same one. The client
names it by a key; the answer is stored under that key in the transaction of the effect, so that there is no moment at
which one of them exists without the other.

    from idempotency.decorator import idempotent

    @idempotent(scope=lambda request: f"user-{request.user.pk}")
    def create(request): ...

answers 400 without a key, 422 for a key that was used with another request, and 409 with `Retry-After` while the first
request is in flight. `idempotency.answers.answer_once` is the same as a function, for views that a framework calls with
parsed arguments (django-ninja, REST framework): it raises what `idempotency.errors` has.

Into another project: copy this folder, add "idempotency" to INSTALLED_APPS, run `manage.py migrate`, and decorate a view. It
has no setting, needs PostgreSQL (an advisory lock tells that a request is in flight; psycopg 2 or 3), and imports nothing but
Django. An answer is kept until you delete it: how long a client may repeat is yours to say, for example daily
`Record.objects.filter(created_at__lt=...).delete()`.

What is not promised: an effect outside of the database. What a view sends elsewhere is sent again when the transaction fails
after it; put it into the transaction as a message (a transactional outbox). A key is forgotten with its record.

Ideas: draft-ietf-httpapi-idempotency-key-header; Stripe's API (keys, `Idempotent-Replayed`);
brandur.org/idempotency-keys.
"""
