"""the user's language; compatible: the version before doesn't know the column and needs no value in it"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("users", sa.Column("language", sa.String(16)))


def downgrade() -> None:
    op.drop_column("users", "language")
