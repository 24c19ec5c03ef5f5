"""Blobs as objects in a bucket that speaks S3; only imported where the configuration says so."""
