"""The subcommands of ``graft``, one file each."""
