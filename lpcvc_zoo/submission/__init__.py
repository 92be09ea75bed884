"""Handing in: compiled towers checked against the rules and shared, and the bundle of the final stage.

``review`` looks and shares nothing; ``share`` is the only step that anybody else sees.
"""

from lpcvc_zoo.submission.bundle import write_bundle as write_bundle
from lpcvc_zoo.submission.record import Submission as Submission
from lpcvc_zoo.submission.record import folder_of as folder_of
from lpcvc_zoo.submission.record import share as share
from lpcvc_zoo.submission.record import sharing as sharing
from lpcvc_zoo.submission.review import Check as Check
from lpcvc_zoo.submission.review import Review as Review
from lpcvc_zoo.submission.review import review as review
from lpcvc_zoo.submission.rows import find_row as find_row
from lpcvc_zoo.submission.rows import read_rows as read_rows
from lpcvc_zoo.submission.rows import reference_ms as reference_ms
