"""A Ray cluster of two nodes on this machine, which listens on the loopback only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import import_module
from unittest import mock


@contextlib.contextmanager
def two_nodes(object_store_bytes: int = 200 << 20, cores: int = 2) -> Iterator[str]:
    """The address of the cluster; this process is connected to it.

    Args:
        object_store_bytes: The size of the object store of each node.
        cores: The cores that each node says it has.
    """
    ray, utils = import_module("ray"), import_module("ray.cluster_utils")
    os.environ.setdefault("RAY_worker_niceness", "0")
    node = {"num_cpus": cores, "node_ip_address": "127.0.0.1", "object_store_memory": object_store_bytes}
    two = utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    two.add_node(**node)
    try:
        # Ray takes 127.0.0.1 in an address for another interface of this machine, where nothing listens.
        with mock.patch("ray._private.services.is_localhost", return_value=False):
            ray.init(address=two.address, log_to_driver=False, _node_ip_address="127.0.0.1")
            yield two.address
    finally:
        ray.shutdown()
        two.shutdown()
