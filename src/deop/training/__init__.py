"""Training: recipes, the training loop with its checkpoints, losses, and the three stages of the paper.

Nothing outside this package and the command line depends on it; a trained model needs none of it.
"""

from deop.training.loop import Run, fit
from deop.training.task import Group, LoopSettings, Optimizer, Task

__all__ = ["Group", "LoopSettings", "Optimizer", "Run", "Task", "fit"]
