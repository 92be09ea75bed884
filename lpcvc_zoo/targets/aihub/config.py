"""Where the client's settings are, read without ever showing the token in them."""

from __future__ import annotations

import configparser
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lpcvc_zoo.errors import MissingExtraError, TargetError

if TYPE_CHECKING:
    from qai_hub.client import ClientConfig

HOW = "Make it with: qai-hub configure --api_token TOKEN (the token is on your account page of AI Hub)."


def installed() -> bool:
    return find_spec("qai_hub") is not None


def config_path(profile: str | None = None) -> Path:
    """The file that the client reads: of ``profile``, else ``$QAIHUB_CLIENT_INI``, else the default one."""
    if not installed():
        raise MissingExtraError("qai-hub", "aihub")
    from qai_hub import api_utils

    return Path(api_utils.get_config_path(profile))


def load_config(profile: str | None = None) -> ClientConfig:
    """The client's configuration; TargetError says which file lacks what, and never what is in it."""
    path = config_path(profile)
    from qai_hub import api_utils
    from qai_hub.public_rest_api import APIException

    how = HOW.replace("configure", f"configure --profile {profile}") if profile else HOW
    if not path.is_file():
        raise TargetError(f"There is no {path}, which holds the token for AI Hub. {how}")
    try:
        config = api_utils.load_api_config_from_file(str(path))
    except APIException:
        raise TargetError(
            f"{path} is incomplete: expected api_url, web_url and api_token in a section [api]. {how}"
        ) from None
    except (configparser.Error, ValueError, OSError) as error:  # their texts may quote the token's line
        raise TargetError(f"{path} can't be read ({type(error).__name__}). {how}") from None
    if not config.api_token.strip():
        raise TargetError(f"{path} has an empty api_token. {how}")
    if not re.fullmatch("[!-~]+", config.api_token):  # requests would show the whole header in its complaint
        raise TargetError(
            f"{path} has an api_token with a space, a line break or letters outside ASCII: "
            f"expected one word, on one line. {how}"
        )
    if not re.match(r"https?://[^/\s]", config.api_url):
        raise TargetError(f"{path} has an api_url that is no address: expected https://... {how}")
    config.verbose = False
    return config
