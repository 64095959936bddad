"""Dead letters: everything that ended badly, once each, with what it takes to understand and replay it.

To lift this folder, set `Task.Request = "dlq.worker.request:Request"`, `worker_consumer = "dlq.worker.consumer:Consumer"`
and the settings that `dlq.conf` lists.
"""
