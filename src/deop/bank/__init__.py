"""Examples beside words: embeddings of marked regions by name, and naming with them.

NumPy only, shared by all engines; it does not depend on torch or on where the embeddings come from.
"""

from deop.bank.bank import Bank, load_bank
from deop.bank.captions import Captioned, learn_captions
from deop.bank.learning import learn
from deop.bank.marks import Box, Click

__all__ = ["Bank", "Box", "Captioned", "Click", "learn", "learn_captions", "load_bank"]
