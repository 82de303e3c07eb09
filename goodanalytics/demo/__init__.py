"""A small shop to try everything on, and two months of history for it whose true figures are known."""
