"""Qualcomm AI Hub: towers compiled, measured and run on real phones in the cloud (extra ``aihub``).

Jobs take minutes, so everything is asynchronous underneath: ``submit_*`` returns a small record at once, and
``collect`` turns it into a result in any process, days later. One key is one job, whatever dies on the way.
The service is spoken to by the official client, ``qai_hub``, imported only when a target is made.
"""

from lpcvc_zoo.targets.aihub.devices import DeviceInfo as DeviceInfo
from lpcvc_zoo.targets.aihub.devices import find_devices as find_devices
from lpcvc_zoo.targets.aihub.devices import problems as problems
from lpcvc_zoo.targets.aihub.failures import ServiceUnavailableError as ServiceUnavailableError
from lpcvc_zoo.targets.aihub.service import Patience as Patience
from lpcvc_zoo.targets.aihub.service import Service as Service
from lpcvc_zoo.targets.aihub.service import open_service as open_service
from lpcvc_zoo.targets.aihub.target import AIHubTarget as AIHubTarget
