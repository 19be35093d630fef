"""Clusters of real processes on one machine: for trying things out (``quorl up``), for demos and for tests.

``processes`` are the nodes, ``ports`` where they listen; ``laptop`` makes a cluster of them, and ``failover`` kills its leader and
says what that cost.
"""
