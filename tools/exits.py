"""Exit codes of every command."""

DONE, CHECK_FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 130
