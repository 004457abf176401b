"""Examples beside words: embeddings of marked regions by name, and naming with them.

NumPy only, shared by all engines; it does not depend on torch or on where the embeddings come from.
"""

from deop.bank.bank import Bank
from deop.bank.learning import learn
from deop.bank.marks import Box, Click
from deop.bank.storage import load_bank

__all__ = ["Bank", "Box", "Click", "learn", "load_bank"]
