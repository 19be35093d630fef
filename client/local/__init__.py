"""Clusters of real processes on one machine: for trying things out (``quorl up``), for demos and for tests."""
