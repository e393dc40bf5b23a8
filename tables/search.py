"""What orders are found by."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tables.base import Base


class OrderWord(Base):
    """One word by which one order is found, folded: see `domain/search_words.py`.

    It names its order without a foreign key: the check of one for each word would cost a purchase more than
    the words do, and orders are never deleted. Words are compared by their bytes, so that those that begin
    alike stand together.
    """

    __tablename__ = "order_words"

    word: Mapped[str] = mapped_column(String(60, collation="C"), primary_key=True)
    order_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)

    __table_args__ = (Index("order_words_order", "order_id"),)
