"""The engine for exported models: numpy, pillow and onnxruntime. Never imports torch."""
