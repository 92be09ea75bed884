"""One call of ``lpcvc_zoo.weights.fetch`` in a process of its own: the hub reads its settings when imported.

Takes ``{"call", "argument", "file_limit"}`` as JSON, prints ``{"result"}`` or ``{"error"}``.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from lpcvc_zoo.entry import Preprocessing, Pretrained
from lpcvc_zoo.errors import WeightsError


def main() -> None:
    order = json.loads(sys.argv[1])
    time.sleep = lambda seconds: None  # the waits between tries
    if order["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], order["file_limit"]))
    from lpcvc_zoo.weights import fetch

    assert "torch" not in sys.modules
    argument = order["argument"]
    try:
        if order["call"] == "fetch_hub":
            found = fetch.fetch_hub(argument)
        else:
            facts = {
                "tag": "v1",
                "preprocessing": Preprocessing(),
                "licence": "x",
                "training_data": "x",
                "paper": "x",
            }
            record = Pretrained(**(facts | argument))
            found = (
                fetch.find_cached(record)
                if order["call"] == "find_cached"
                else fetch.fetch(record, model="tiny")
            )
        print(json.dumps({"result": found and str(found)}))
    except WeightsError as error:
        print(json.dumps({"error": str(error)}))


main()
