"""The version, read by the packaging and shown as ``bws.__version__``."""

__version__ = "0.1.0"
