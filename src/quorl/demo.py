"""The tasks of the demo, where people look for them: ``quorl worker run quorl.demo:app``."""

from quorl.client.demo import app

__all__ = ["app"]
