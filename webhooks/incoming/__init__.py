"""A receiver of webhooks: verified, stored once, answered 2xx, and handed on in the same transaction.

A provider delivers an event at least once and forgets it when it is answered 2xx. So the row of the event and what is to
follow from it are committed together before that answer, and a repetition finds the row. The work itself follows later, in a
worker: a slow answer is a failed one to a provider.

`urls.py` has one for Stripe, at `gateway`. Another provider is a line of one's own, with a function that verifies it:

    path("hooks/acme", receiver(provider="acme", verify=acme_signature, identify=acme_event))

Settings, all with a default: `STRIPE_WEBHOOK_SECRET` (text, or several while one is replaced; "" takes nothing) and
`INCOMING_ON_EVENT` (dotted path of a callable; "" stores only): called once for each new event, inside the transaction that
stores it, as `on_event("gateway.event_received", event_id="evt_1")`, with the provider's name before the dot. With `outbox/`
installed it is "outbox.emit", and `OUTBOX_EVENTS` says which tasks follow.

Into another project: copy this folder, also under another name or into another package; add it to INSTALLED_APPS by its path
("webhooks.incoming" here, then with `webhooks/__init__.py`), `include` its `urls`, run `manage.py migrate`, and set the two
settings. It imports Django, and for `signatures.py` the package `stripe`; it needs PostgreSQL (psycopg 2 or 3).

What is not promised: order. A provider's events come in any order, and more than once to the same address.

Ideas: Stripe's page on webhooks (signature, tolerance, duplicates); Standard Webhooks (standardwebhooks.com).
"""
