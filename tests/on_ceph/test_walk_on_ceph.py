"""See there."""

from tests.end_to_end.test_walk import *  # noqa: F403
