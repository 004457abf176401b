"""The HTTP server: the page and ``/v1``. Needs the extra "serve"; never imports torch by itself.

>>> from deop.serving.app import create_app
"""
