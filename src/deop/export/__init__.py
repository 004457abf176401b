"""Models of torch as ONNX graphs, which ``deop.runtime`` runs without torch. Needs ``onnx`` and ``onnxscript``."""
