"""Defaults of the server: where it listens, who may use it, and how much one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tl_kit.config.augment_settings import CropConfig
from tl_kit.config.machine_settings import RuntimeConfig
from tl_kit.config.shared_flags import CHECKPOINT_OR_FILE, DEVICE_ONLY, MC_DROPOUT
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, OWN_CHECK, POSITIVE, Range

__all__ = ["ServeConfig", "ServeLimits"]

_PORTS = Range("from 0 (any free one) to 65535", lambda value: 0 <= value <= 65535)


@dataclass(frozen=True, kw_only=True)
class ServeLimits:
    """Limits on what clients may ask for; what is more is refused, and the server goes on.

    ``batch``: on a CPU more images a forward pass gain nothing, and the first of them would wait for all
    (benchmarks/serve.py); on a GPU it is at least the rows that every pass has there. ``wait``: seconds that a batch
    waits for images which are being decoded, a fraction of one forward pass; it never waits for images that nobody has
    sent. ``queue``: images that are decoded, wait or run at a time: some seconds of work of a small CPU; as many more
    may be fetched. ``files`` a request. ``image_bytes`` of one file, ``request_bytes`` of one body: a phone's photo has
    3 to 12 MB. ``held_bytes``: of all bodies at a time, and of all images that are fetched, which bounds the memory
    however many clients there are. ``pixels`` of one image: decoding needs 5 to 25 bytes for each. ``figures``:
    probabilities in one answer. ``seconds`` for one request, from its first byte to its answer; ``body_seconds`` until
    it has come, ``header_seconds`` for the lines before its body, ``answer_seconds`` until the client has taken its
    answer. ``idle_seconds``: between two requests of one connection. ``connections`` at a time: each is an open file.
    ``drain_bytes``: of a refused body that are read and dropped, so that its sender can read the answer. ``heat_maps``
    a request: each costs more than a prediction. ``fetch_seconds`` for all addresses of a request, at most half of
    ``seconds``; ``fetches`` are under way at a time, ``fetches_each`` of one request. ``retry_seconds``: when a refused
    client may ask again.
    """

    batch: Annotated[
        int, AT_LEAST_ONE, Flag(panel="Run", metavar="N", help="At most so many images in one forward pass.")
    ] = 16
    wait: float = 0.02
    queue: Annotated[
        int, AT_LEAST_ONE, Flag(panel="Run", metavar="N", help="More images at a time are refused (429).")
    ] = 256
    files: Annotated[
        int, AT_LEAST_ONE, Flag(panel="Run", metavar="N", help="At most so many images a request (413).")
    ] = 64
    pixels: Annotated[
        int,
        AT_LEAST_ONE,
        Flag(panel="Run", name="--max-pixels", metavar="N", help="Larger images are refused, before they are decoded."),
    ] = 2**26
    image_bytes: Annotated[int, AT_LEAST_ONE] = 2**25
    request_bytes: Annotated[int, AT_LEAST_ONE] = 2**26
    held_bytes: Annotated[int, AT_LEAST_ONE] = 2**28
    seconds: Annotated[
        float, POSITIVE, Flag(panel="Run", metavar="S", help="A request that takes longer is given up.")
    ] = 60.0
    body_seconds: Annotated[float, POSITIVE] = 30.0
    header_seconds: Annotated[float, POSITIVE] = 10.0
    idle_seconds: Annotated[float, POSITIVE] = 10.0
    connections: Annotated[int, AT_LEAST_ONE] = 2048
    answer_seconds: Annotated[float, POSITIVE] = 60.0
    drain_bytes: int = 2**24
    figures: Annotated[int, AT_LEAST_ONE] = 2**18
    fetch_seconds: Annotated[float, POSITIVE] = 20.0
    fetches: Annotated[int, AT_LEAST_ONE] = 32
    fetches_each: Annotated[int, AT_LEAST_ONE] = 8
    heat_maps: Annotated[int, AT_LEAST_ONE] = 4
    retry_seconds: Annotated[int, AT_LEAST_ONE] = 1


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """One server: the classifier, where it listens, and who may use it.

    ``host``: 127.0.0.1 is this machine alone. Any other needs a token, or ``without_token``. The token is the content
    of ``token_file``, or of the environment variable TLKIT_TOKEN: a command line can be read by every user of a
    machine. ``allow_host``: names by which browsers may call the server, where there are others than its address; all
    else is refused, since a page elsewhere could point its own name at this machine (DNS rebinding). ``trust_proxy``:
    IP addresses or networks of proxies that put the browser's name and scheme into X-Forwarded-Host and
    X-Forwarded-Proto. With ``urls`` clients may send addresses of images, which the server fetches: of public hosts
    alone without ``allow_private``. ``crops`` and ``mc_dropout`` as for ``PredictConfig``.
    """

    checkpoint: Annotated[Path, CHECKPOINT_OR_FILE]
    port: Annotated[int, _PORTS, Flag(panel="Run", common=True, metavar="N", help="0: any free one.")] = 8000
    host: Annotated[
        str, Flag(panel="Run", common=True, metavar="ADDRESS", help="127.0.0.1: this machine; 0.0.0.0: the network.")
    ] = "127.0.0.1"
    token_file: Annotated[
        Path | None,
        Flag(
            panel="Run",
            common=True,
            metavar="FILE",
            help="Clients must send the file's text as bearer token (or that of the variable TLKIT_TOKEN).",
        ),
    ] = None
    without_token: Annotated[
        bool, Flag(panel="Run", help="On another --host: let everybody who can reach it use it.")
    ] = False
    allow_host: Annotated[
        tuple[str, ...],
        Flag(panel="Run", metavar="NAME", help="A further name by which clients may call the server."),
    ] = ()
    trust_proxy: Annotated[
        tuple[str, ...],
        Flag(panel="Run", metavar="IP", help="Believe X-Forwarded-Host and -Proto of a proxy there, or in a network."),
    ] = ()
    urls: Annotated[
        bool, Flag(panel="Data", common=True, help="Fetch images whose http or https addresses clients send.")
    ] = False
    allow_private: Annotated[
        bool, Flag(panel="Data", help="With --urls: also from this machine and private networks.")
    ] = False
    limits: ServeLimits = ServeLimits()
    crops: CropConfig | None = None
    mc_dropout: Annotated[int | None, OWN_CHECK, MC_DROPOUT] = None
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()
