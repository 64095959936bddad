"""What holds wherever gunicorn is started in this directory; what differs stands in the Procfile and the Dockerfile."""

# From 25.1 on gunicorn makes a socket in its user's home by which it can be controlled. A home may be read-only or may not
# be there, nothing here uses the socket, and who can open it can stop the service. An older gunicorn ignores the name.
control_socket_disable = True
