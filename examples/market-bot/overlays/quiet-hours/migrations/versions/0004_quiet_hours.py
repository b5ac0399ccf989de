"""quiet hours; compatible: a nullable column"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("users", sa.Column("quiet_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("users", "quiet_until")
