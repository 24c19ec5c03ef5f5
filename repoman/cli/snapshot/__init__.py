"""``save``: the running system as an image, by rsync into a mounted file system."""
