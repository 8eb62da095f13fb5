"""Writing: whole or not at all, never over others unasked, and by one run at a time."""

from graft.rewriter.files.claim import claimed, settled
from graft.rewriter.files.refusal import refuse_overwrite, refuse_unwritable, unwritable
from graft.rewriter.files.single import writing
from graft.rewriter.files.whole import Seen, read_whole

__all__ = [
    "Seen",
    "claimed",
    "read_whole",
    "refuse_overwrite",
    "refuse_unwritable",
    "settled",
    "unwritable",
    "writing",
]
