"""The domain: customers place orders, orders are charged once, and their effects follow as messages."""
