"""Who buys, and who may call the API."""

import hashlib
import secrets
from typing import Self

from django.db import models


class Customer(models.Model):
    """Somebody who orders. `email` gets what an order without a `receipt_email` of its own sends."""

    name = models.CharField(max_length=200)
    email = models.EmailField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


class ApiKey(models.Model):
    """A Bearer key of the HTTP API. Only its SHA-256 is stored: the key itself is 256 random bits, so that a
    slow password hash would cost every request and protect nothing.

    A key with a `customer` sees and places that customer's orders only; one without sees all.
    """

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="The first characters of the key, to tell keys apart.")
    key_hash = models.CharField(max_length=64, unique=True)
    is_active = models.BooleanField(default=True)
    customer = models.ForeignKey(Customer, null=True, blank=True, on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)

    #: The key itself; known only to the object that `renew` was called on.
    raw = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @classmethod
    def issue(cls, name: str, *, customer: Customer | None = None) -> tuple[Self, str]:
        """Create a key and return it with its raw text, which exists nowhere else: show it once."""
        key = cls(name=name, customer=customer)
        raw = key.renew()
        key.save()
        return key, raw

    def renew(self) -> str:
        """Give this row a new key and return its raw text; the caller saves the row."""
        self.raw = f"hf_{secrets.token_urlsafe(32)}"
        self.prefix, self.key_hash = self.raw[:8], self.digest(self.raw)
        return self.raw

    @staticmethod
    def digest(raw: str) -> str:
        """What is stored for the key `raw`. Takes any text, since it comes from a header."""
        return hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()
