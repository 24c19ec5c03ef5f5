"""The one order in which transactions lock rows, so that none waits for one that waits for it.

Images by key; accounts by key; uploads; words by name; the repository; the audit.  What a
trigger or a foreign key locks counts, too: who refers to an image in a new row locks that image,
and what moves an address locks its owner's account.  Whoever needs several rows of one kind
takes them in one statement of these.
"""

from __future__ import annotations

IMAGES = "SELECT FROM image WHERE owner_id = %s ORDER BY image_id FOR UPDATE"
"""All of a user's."""

ACCOUNTS = """
SELECT account_id, user_name FROM account WHERE account_id = ANY(%s) OR user_name = ANY(%s)
 ORDER BY account_id FOR NO KEY UPDATE
"""
"""Those with these keys or names."""

OWNER = """
SELECT FROM account WHERE account_id = (SELECT owner_id FROM image WHERE image_id = %s)
   FOR NO KEY UPDATE
"""
"""The account of an image's owner; the image is locked, or new."""

PAYERS = """
SELECT FROM account
 WHERE account_id IN (
    SELECT unnest(ARRAY[payer_id, uploader_id]) FROM blob WHERE state = 'receiving' AND {condition})
 ORDER BY account_id FOR NO KEY UPDATE
"""
"""The accounts of all who have to do with some uploads, before these."""

# KEY SHARE is what the new row's foreign key takes; it comes too late.
TARGET = """
SELECT FROM image WHERE image_id = %(image)s FOR KEY SHARE;
SELECT FROM account WHERE account_id IN (%(owner)s, %(uploader)s)
 ORDER BY account_id FOR NO KEY UPDATE
"""
"""The image that an upload begins to, its owner and the uploader."""

WORDS = """
SELECT FROM word
 WHERE NOT lasting AND word IN (
    SELECT hypervisor FROM image_hypervisor WHERE image_id = %(image)s
    UNION SELECT unnest(%(added)s::text[]))
 ORDER BY word FOR UPDATE
"""
"""All words that an image may begin or cease to use, but for those that always are there."""

ALL_WORDS = """
SELECT FROM word
 WHERE NOT lasting AND word IN (
    SELECT user_name FROM account WHERE account_id = %(owner)s
    UNION SELECT hypervisor FROM image_hypervisor JOIN image USING (image_id)
           WHERE owner_id = %(owner)s)
 ORDER BY word FOR UPDATE
"""
"""A user's name, and all words of that user's images."""
