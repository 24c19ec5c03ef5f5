"""See there."""

from tests.end_to_end.test_rivals import *  # noqa: F403
