"""Tables of goodanalytics, version 1."""

from alembic import op
from goodanalytics import migrations

revision = "0001"
down_revision = None


def upgrade() -> None:
    migrations.upgrade(op, since=0, to=1)


def downgrade() -> None:
    migrations.downgrade(op, since=1, to=0)
