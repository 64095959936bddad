"""The journey of one order: everything that happened to it, for its customer (`orders.api.journey`) and for staff."""
