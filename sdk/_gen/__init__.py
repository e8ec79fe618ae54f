"""Code compiled from ``protos/sdk`` by ``protos/compile_own.py``. Do not edit."""
