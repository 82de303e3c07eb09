"""The dashboard: server-rendered pages; `room` puts them together."""
