"""Repoman: a RESTful, X.509-authenticated repository of virtual-machine images."""

__version__ = "3.0.0.dev0"
