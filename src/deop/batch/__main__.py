"""The processes of a batch, which its parent process starts: ``python -m deop.batch worker`` or ``ray``."""

import sys

from deop.networks.threads import limit_numpy_threads, limit_spinning

if __name__ == "__main__":
    limit_spinning()
    limit_numpy_threads()  # before numpy is imported
    if sys.argv[1:] == ["worker"]:
        from deop.batch.worker import main
    else:
        from deop.batch.ray_engine import main
    main()
