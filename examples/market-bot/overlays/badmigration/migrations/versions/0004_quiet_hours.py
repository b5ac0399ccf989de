"""quiet hours, with the mistake that a database of a developer didn't show: `muted_until` exists nowhere else"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("users", sa.Column("quiet_until", sa.DateTime(timezone=True)))
    op.execute("UPDATE users SET quiet_until = muted_until")


def downgrade() -> None:
    op.drop_column("users", "quiet_until")
