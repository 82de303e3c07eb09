"""ACT: conversions reach ad platforms and webhooks. `plan` fills the outbox, `dispatcher` empties it."""
