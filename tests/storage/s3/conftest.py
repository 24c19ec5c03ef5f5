"""What the tests of the object store share."""

from __future__ import annotations

from unreliable_place import place as place
