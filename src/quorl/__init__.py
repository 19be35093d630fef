"""quorl: topics and tasks on one replicated log."""

__version__ = "0.1.0"
