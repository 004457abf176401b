"""The threads that models compute with: how many, and what they do while they wait. Imports no other library."""

import os
from collections.abc import Mapping, MutableMapping
from numbers import Integral

from deop.errors import SettingError

# Of GNU's OpenMP, which torch uses on Linux: iterations. Of Intel's and LLVM's: milliseconds, not measured.
_LIMITS = {"GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "1"}
_MOST_THREADS = 4096  # far more than a machine has cores; more cannot be started, or not be counted in 32 bits


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others sleep soon; by default OpenMP lets them spin for up to 20 ms.

    Where other programs need the processor, spinning takes time from the threads that are waited for. Not to spin at
    all costs time on a quiet machine, where threads wait for microseconds (docs/speed.md, "Under load"). OpenMP reads
    the variables when it is loaded, so this has an effect only before torch is imported. The process of the ``deop``
    command calls it; ``import deop`` does not, because the variables would apply to all other libraries of the
    caller's process and to the processes that it starts.

    Args:
        environment: the environment variables. If one about waiting is already set, nothing is changed.

    >>> variables = {}
    >>> limit_spinning(variables)
    >>> variables
    {'GOMP_SPINCOUNT': '20000', 'KMP_BLOCKTIME': '1'}
    """
    if not any(variable in environment for variable in ("OMP_WAIT_POLICY", *_LIMITS)):
        environment.update(_LIMITS)


def limit_numpy_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let NumPy's OpenBLAS compute with one thread, unless the environment already sets the number.

    Labelling multiplies many small matrices, for which several threads save no time. By default OpenBLAS starts one per
    core, and these spin while they wait, which takes the cores from the threads that compute the networks: on a busy
    machine, labelling took ten times as long. OpenBLAS reads the variable when NumPy is imported. As with
    ``limit_spinning``, only the process of the ``deop`` command calls it.

    >>> variables = {}
    >>> limit_numpy_threads(variables)
    >>> variables
    {'OPENBLAS_NUM_THREADS': '1'}
    """
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")


def set_threads(count: int | None) -> None:
    """Set the number of threads that torch computes with in this process.

    Args:
        count: the number, at least 1; None: torch's default, which is one per core, or OMP_NUM_THREADS if it is set.

    Raises:
        SettingError: a number below 1.
    """
    check_threads(count)
    if count is None:
        return
    import torch

    torch.set_num_threads(count)


def check_threads(count: int | None) -> int | None:
    """The same number of threads, or None for the default.

    Raises:
        SettingError: a number below 1 or above 4,096.
    """
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count <= _MOST_THREADS:
        raise SettingError(f"the number of threads must be at least 1 and at most {_MOST_THREADS}, not {count}")
    return count


def threads_for_sessions(environment: Mapping[str, str] = os.environ) -> int:
    """The default number of threads of a session of ONNX Runtime; 0: as many as the machine has physical cores.

    ONNX Runtime counts the cores of the machine. Where the process may use only some of them, as in many containers,
    it would start too many threads and try to bind them to cores that it may not use.

    Args:
        environment: the environment variables; OMP_NUM_THREADS applies, as for torch.

    >>> threads_for_sessions({"OMP_NUM_THREADS": "2"})
    2
    """
    requested = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if requested.isdecimal() and int(requested) > 0:
        return int(requested)
    if not hasattr(os, "sched_getaffinity"):  # macOS and Windows
        return 0
    usable = len(os.sched_getaffinity(0))
    return usable if usable < (os.cpu_count() or 1) else 0


SESSION_SPIN = 50
"""Microseconds that a thread of ONNX Runtime spins while it waits, before it sleeps (docs/speed.md, "Under load")."""


def spin_of_sessions(version: str, environment: Mapping[str, str] = os.environ) -> int:
    """Microseconds that the threads of a session of ONNX Runtime spin while they wait; 0: they sleep at once.

    Between two operations a thread waits for some ten microseconds, and to wake it takes as long. ONNX Runtime's
    default, a millisecond or more, takes the cores from other programs and from the threads that are waited for.

    Args:
        version: that of ONNX Runtime; before 1.26 the time cannot be set.
        environment: the environment variables. OMP_WAIT_POLICY=PASSIVE applies, as for torch: threads never spin.

    >>> spin_of_sessions("1.32.0", {}), spin_of_sessions("1.25.1", {})
    (50, 0)
    >>> spin_of_sessions("1.32.0", {"OMP_WAIT_POLICY": "passive"})
    0
    """
    release = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    sleeps = environment.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE"
    return 0 if sleeps or release < (1, 26) else SESSION_SPIN
