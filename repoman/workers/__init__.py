"""Several processes that serve from one port: a foreman, who serves nothing, and its workers."""
