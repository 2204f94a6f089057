"""The part of config.json that is the Oracle's: which box answers, and what the local one may take. It knows no network.

A URL is checked here as text: what is spelled so that two readers may understand two hosts is refused.
"""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from core.config_words import Section

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
REMEDY = "write it like http://192.168.1.20:8000 or https://box.example/v1"


class Oracle(Section):
    url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="An OpenAI-compatible server to chat with (vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, `oracle "
        "serve`), with or without /v1 at its end. None: the hero answers on this machine. Its key, if it asks for one, "
        "stands in state/oracle.key.",
    )
    model: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="The box's model that answers for the hero, as the box calls it. Default: the hero's checkpoint if the "
        "box lists it, else the first that it lists.",
    )
    port: int = Field(
        8765, ge=1, le=65535, description="TCP port of the local Oracle, on loopback; another where it is taken."
    )
    memory_gib: float | None = Field(
        None,
        gt=0,
        lt=1 << 20,
        description="GiB that the local Oracle may use. Default: a quarter of main memory. It does not start where as "
        "much is not free.",
    )
    threads: int = Field(1, ge=1, le=256, description="Threads that the local Oracle computes with, at low priority.")
    idle_minutes: Annotated[float, Field(gt=0)] = Field(
        10.0, description="Minutes without a question after which the local Oracle ends."
    )
    seconds: float = Field(600.0, gt=0, le=86400, description="Seconds that one answer may take, from whatever server.")

    @field_validator("url")
    @classmethod
    def url_is_plain(cls, value: str | None) -> str | None:
        return value and check_url(value)


def check_url(url: str) -> str:
    """`url` without a slash or /v1 at its end. Raises ValueError naming what is wrong."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as problem:
        raise ValueError(f"is no URL ({problem}); {REMEDY}") from None
    if parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable() or "\\" in url:
        raise ValueError(f"must be a plain http or https URL; {REMEDY}")
    if parts.username is not None or parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(f"must hold no user, password, query or fragment; {REMEDY}")
    if not _is_host(host) or port == 0:
        raise ValueError(f"{host!r} is neither a host name nor an IP address as it is usually written; {REMEDY}")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"its path {parts.path!r} is not plain; {REMEDY}")
    spelled = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{spelled}{f':{port}' if port else ''}{path}"


def _is_host(host: str) -> bool:
    """An address in its one usual spelling, or a name that no reader takes for a number (0x7f.1, 2130706433, 127.1)."""
    try:
        return str(ipaddress.ip_address(host)) == host and "%" not in host
    except ValueError:
        labels = host.removesuffix(".").split(".")
        last = labels[-1]
        number = last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None
        return not number and len(host) <= 253 and all(map(_NAME.fullmatch, labels))
