"""${message}."""

from alembic import op
from goodanalytics import migrations

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "migrations.upgrade(op, since=…, to=…)"}


def downgrade() -> None:
    ${downgrades if downgrades else "migrations.downgrade(op, since=…, to=…)"}
