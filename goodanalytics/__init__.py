"""First-party analytics, short links and attribution inside your own ASGI app and PostgreSQL."""

__version__ = "0.1.0.dev0"
