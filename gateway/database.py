"""One SQL database for store and directory: SQLite in one process, or PostgreSQL for many.

Writes go through one thread with group commit: whatever waits (up to 64 operations) shares one
transaction and one fsync. Reads have their own small pool of threads. An operation is a plain
function of a `Tx`; it may run twice (a failed group is repeated one by one, a lost connection is
retried), so it must be idempotent and touch nothing but its `Tx`.
"""
