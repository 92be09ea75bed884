"""Hashes of large files, taken once: a small record in the cache remembers each until its file changes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from lpcvc_zoo.files import cache_dir, sha256_of, write_text

logger = logging.getLogger(__name__)


def sha256_once(path: Path) -> str:
    """sha256 of the file, in hex; hashed again only when its path, inode, size or time of change differ."""
    stat = path.stat()
    resolved = str(path.resolve())
    about = {"path": resolved, "stat": [stat.st_ino, stat.st_size, stat.st_mtime_ns]}
    name = hashlib.sha256(resolved.encode()).hexdigest()[:32]
    record = cache_dir() / "weights" / ".sha256" / f"{name}.json"
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if {key: known[key] for key in about} == about:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no record, or no readable one: hash the file
    digest = sha256_of(path)
    try:
        write_text(record, json.dumps(about | {"sha256": digest}))
    except OSError as error:
        logger.debug("the hash of %s can't be remembered: %s", path, error)
    return digest
