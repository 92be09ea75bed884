"""Qualcomm AI Hub on this machine's loopback, for tests: it speaks the protocol of the real client.

"Compile" checks the ONNX file and keeps it, "quantize" calibrates it with ONNX Runtime, "inference" runs it
there, and "profile" lists its nodes; the object store has an origin of its own. Jobs advance when they are
asked for, so nothing depends on the clock. What the server holds outlives every client; faults are injected
request by request and job by job.
"""

from aihub_server.faults import Fault as Fault
from aihub_server.faults import JobFault as JobFault
from aihub_server.server import TOKEN as TOKEN
from aihub_server.server import AIHubServer as AIHubServer
from aihub_server.state import DEVICES as DEVICES
from aihub_server.state import Job as Job
