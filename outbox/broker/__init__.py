"""Redis and RabbitMQ: how a message travels, and how many wait in a queue."""
