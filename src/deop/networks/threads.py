"""The threads that torch computes with: how many, and what they do while they wait. Imports no other library."""

import os
from collections.abc import MutableMapping

from deop.errors import SettingError

_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how threads wait: OpenMP's own, and those of GNU's and of Intel's and LLVM's implementation."""


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others sleep; by default OpenMP lets them spin, at the cost of the others.

    On a machine where other programs need the processor, two spinning threads take more than ten times as long as
    one (docs/speed.md, "Under load"). OpenMP reads the variable when it is loaded, so this has an effect only before
    torch is imported. The process of the ``deop`` command calls it; ``import deop`` does not, because the variable
    would apply to all other libraries of the caller's process and to the processes that it starts.

    Args:
        environment: the environment variables. A variable about waiting that is already set is respected.

    >>> variables = {}
    >>> sleep_while_waiting(variables)
    >>> variables
    {'OMP_WAIT_POLICY': 'PASSIVE'}
    """
    if not any(variable in environment for variable in _WAIT_VARIABLES):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def set_threads(count: int | None) -> None:
    """Set the number of threads that torch computes with in this process.

    Args:
        count: the number, at least 1; None: torch's default, which is one per core, or OMP_NUM_THREADS if it is set.

    Raises:
        SettingError: a number below 1.
    """
    if count is None:
        return
    if count < 1:
        raise SettingError(f"the number of threads must be at least 1, not {count}")
    import torch

    torch.set_num_threads(count)
