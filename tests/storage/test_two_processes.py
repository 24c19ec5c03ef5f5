"""On one machine the kernel keeps two processes from writing into one unfinished blob."""

from __future__ import annotations
