"""Whether a hub answers, within seconds: an unreachable one is a line at once, not minutes of somebody's retries."""

from __future__ import annotations

import functools
import os
import ssl
import threading
import urllib.error
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_S = 6.0


def refusal(url: str) -> str:
    """Why nothing answers at ``url``; "" where something does, be it an error status or an unknown certificate.

    One request, one try. A thread bounds the wait, since name resolution ignores the timeout of a socket: with a
    name server that is away each look-up takes 10 to 40 seconds, and clients of hubs look names up several times.
    """
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S):
                answer.append("")
        except urllib.error.HTTPError:
            answer.append("")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answer.append("" if isinstance(reason, ssl.SSLError) else str(reason) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S + 1)
    return answer[0] if answer else f"no answer in {TIMEOUT_S:g} s"


def model_hub() -> str:
    """The address of the hub of models and data sets; "" where its client is told to stay offline."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "" if offline else os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def model_hub_away() -> str:
    """In words that the hub of models cannot be reached, and why; "" where it answers or is not to be asked."""
    hub = model_hub()
    reason = unreached(hub) if hub else ""
    return f"the hub {hub} cannot be reached ({reason})" if reason else ""


def otherwise(asked: str, away: str) -> str:
    """How to get a model that the hub did not give; ``away`` says that it cannot be reached."""
    if away or not model_hub():
        return f"download it where the hub answers (hf download {asked} --local-dir DIR) and name DIR"
    return "check its name, and run hf auth login if it asks for consent"


def unreached(url: str) -> str:
    """:func:`refusal` of the server behind an address, which is asked once a process; "" for a file of this machine."""
    parts = urlsplit(url)
    return "" if parts.scheme == "file" else _asked_once(f"{parts.scheme}://{parts.netloc}")


@functools.cache
def _asked_once(origin: str) -> str:
    return refusal(origin)
