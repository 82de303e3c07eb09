"""
The log: where a hit is made durable before anybody is told that it was taken.

Two verbs: `append(hits)` returns when they are safe; `claim(n)` hands out the oldest in a transaction that either processes
them or leaves them where they were.
"""
