"""The REST room: one module for each family of paths; `room` puts them together."""
