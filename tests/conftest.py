"""Fixtures for all unit tests."""

from tests.demo import demo_artifact, demo_reference

__all__ = ["demo_artifact", "demo_reference"]
