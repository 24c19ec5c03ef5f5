"""Where blobs lie: one module per kind of place, all keeping IBlobStore's promises."""
