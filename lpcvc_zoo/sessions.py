"""How ONNX Runtime is asked to compute what a file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

# Its kernel for products by 8-bit weights rounds what they multiply to 8 bits as well, a w8a16 file's 16 too,
# unless it is told to compute in float (session option of onnxruntime_session_options_config_keys.h).
PRODUCTS_IN_FLOAT = ("session.qdq_matmulnbits_accuracy_level", "1")


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """For a session with ``threads`` threads, 0 for as many as there are cores, that warns of nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry(*PRODUCTS_IN_FLOAT)
    return options
