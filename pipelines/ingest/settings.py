"""What a download makes of a URL list, and how it treats the hosts and this machine."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pipelines.config.settings import to_dict
from pipelines.ingest.patterns import folder_of
from pipelines.ingest.url_list import InputFormat, list_files
from vlp.core.config import Above, AtLeast, StrictConfig, Within
from vlp.shards.index_schema import INDEX_SCHEMA
from vlp.shards.storage.address import ByAddress, open_folder
from vlp.shards.storage.folder import Folder

ResizeMode = Literal["no", "keep_ratio", "center_crop", "border", "keep_ratio_largest"]

_ALWAYS_ENCODED = "every image is stored as a JPEG of encode_quality; leave it out"
COUNTERPARTS = {
    "output_folder": "give the folder as `-o FOLDER`",
    "output_format": "shards are always webdataset's, with a Parquet index; leave it out",
    "processes_count": "set machine.data_workers",
    "distributor": "set machine.data_workers=0 for processes of this machine, or more for workers of Ray",
    "subjob_size": "all shards are handed out one by one; leave it out",
    "encode_format": _ALWAYS_ENCODED,
    "skip_reencode": _ALWAYS_ENCODED,
    "disable_all_reencoding": _ALWAYS_ENCODED,
    "upscale_interpolation": "it is always lanczos; leave it out",
    "downscale_interpolation": "it is always area; leave it out",
    "bbox_col": "nothing is blurred; leave it out",
    "extract_exif": "EXIF data are not stored; leave it out",
    "compute_hash": "the sha256 of every image is stored; leave it out",
    "incremental_mode": "the same command always goes on where it was; to start over, choose another folder",
    "max_shard_retry": "the same command makes what is missing, --retry-failed asks for failed URLs again",
    "oom_shard_count": "shards are numbered with five digits, or more where they need them; leave it out",
    "enable_wandb": "every download is a run of MLflow, which `vlp ui` shows; leave it out",
    "wandb_project": "every download is a run of MLflow, which `vlp ui` shows; leave it out",
}
"""What to do in place of setting img2dataset's options that there are not."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig(StrictConfig):
    """What is downloaded and how it is stored.

    Names are img2dataset's where it has them, and so are defaults but for these: `resize_mode` (theirs is
    `border`), `resize_only_if_bigger` (False), `max_image_area` (inf), `thread_count` (256), `retries` (0),
    `input_format` (`txt`), `caption_col` and `save_additional_columns` (None), and
    `disallowed_header_directives`, which are written out.
    `COUNTERPARTS` says what there is in place of its other options.
    """

    url_list: Annotated[Path | Folder, ByAddress()]
    """File, or folder of files, with one URL and caption per row, here or in an object store; a pattern such
    as `lists/{00000..00012}.parquet` or `lists/*.csv`; or a folder of Hugging Face `datasets`."""
    split: str | None = None
    """Split of a folder of Hugging Face `datasets`, or several as in `train+validation`."""
    input_format: InputFormat = "auto"
    """`images` is a folder of image files, whose captions are the lines of a .txt file beside each, or in a
    metadata.jsonl, .csv or .parquet with the columns `file_name` and `caption_col`."""
    url_col: str = "url"
    """Column of addresses."""
    caption_col: str | None = "caption"
    """Column of texts, or of lists of texts; null takes images alone, which MAE and SimMIM are trained on."""
    save_additional_columns: tuple[str, ...] = ()
    """Further columns, which shards keep in their indexes; `vlp data subset` selects by them."""
    image_col: str | None = None
    """Column of encoded images in Parquet or Arrow files: they are taken from there, not from `url_col`."""
    verify_hash: tuple[str, Literal["md5", "sha256", "sha512"]] | None = None
    """Column of hex digests, and their algorithm; an image with another digest is not stored."""

    image_size: Annotated[int, AtLeast(1)] = 256
    """Pixels; of which side depends on `resize_mode`."""
    resize_mode: ResizeMode = "keep_ratio"
    """As it is (`no`); by the shorter side (`keep_ratio`) or the longer one (`keep_ratio_largest`); to a
    square, of which the rest is cut off (`center_crop`) or filled with white (`border`)."""
    resize_only_if_bigger: bool = True
    """Leave images as they are that are no larger than `image_size`."""
    encode_quality: Annotated[int, Within(0, 100)] = 95
    """JPEG quality."""
    number_sample_per_shard: Annotated[int, AtLeast(1)] = 10_000
    """URLs per shard."""

    min_image_size: Annotated[int, AtLeast(0)] = 0
    """Images with a shorter side in pixels are dropped."""
    max_image_area: Annotated[float, AtLeast(1)] = 1e8
    """Pixels; larger images are dropped, before they are decoded."""
    max_aspect_ratio: float = float("inf")
    """Images with a larger ratio of the sides are dropped."""
    min_caption_length: Annotated[int, AtLeast(0)] = 0
    """Characters; shorter captions are dropped, and the image with the last of them."""
    max_caption_length: float = float("inf")
    """Characters; longer captions are dropped, and the image with the last of them."""
    max_grouping_bytes: Annotated[int, AtLeast(2**27)] = 2**30
    """Memory to group a URL list by URL and images by their bytes; more goes to a temporary folder."""
    drop_duplicates: Literal["none", "exact", "near"] = "none"
    """Of images of the whole set with the same bytes (exact), or that look alike (near), the first stays."""
    near_duplicate_distance: Annotated[int, Within(0, 15)] = 3
    """Bits of the 64 of the perceptual hash in which images that look alike may differ."""

    thread_count: Annotated[int, AtLeast(1)] = 64
    """Requests at a time, per actor."""
    timeout: Annotated[float, Above(0)] = 10.0
    """Seconds without an answer, or without any more of it."""
    total_timeout: Annotated[float, Above(0)] = 60.0
    """Seconds for one URL in all: redirects, body and retries."""
    decode_timeout: Annotated[float, Above(0)] = 10.0
    """Seconds of a CPU core to decode, resize and encode one image; what takes longer is given up."""
    retries: Annotated[int, AtLeast(0)] = 1
    """More requests after a timeout, a 429 or a 5xx."""
    max_redirects: Annotated[int, AtLeast(0)] = 5
    """Other addresses that a URL may lead to, one after another."""
    max_body_bytes: Annotated[int, AtLeast(1)] = 32 * 2**20
    """Bytes of an answer at most; longer ones are given up."""
    max_buffer_bytes: Annotated[int, AtLeast(1)] = 256 * 2**20
    """Bytes of images that were downloaded and not resized yet, per actor."""
    allowed_networks: tuple[str, ...] = ()
    """Networks such as 127.0.0.0/8 that may be asked although they are not on the public internet."""

    host_concurrency: Annotated[int, AtLeast(1)] = 16
    """Requests at a time to one host, over all actors (but at least one each)."""
    host_rate: Annotated[float, Above(0)] = float("inf")
    """Requests per second to one host, over all actors."""
    host_timeouts: Annotated[int, AtLeast(1)] = 50
    """Requests of a shard that a host leaves unanswered in a row before the rest of its URLs are given up."""
    user_agent_token: str | None = None
    """Name that hosts know the downloader by, and address in X-Robots-Tag and robots.txt."""
    user_agent_contact: str | None = None
    """Web page or mail address at which hosts reach whoever runs the download."""
    disallowed_header_directives: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    """X-Robots-Tag values that are honoured; [] honours none."""
    robots_txt: Literal["ignore", "obey"] = "ignore"
    """Whether the hosts' rules for crawlers are read and obeyed."""

    min_success_rate: Annotated[float, Within(0, 1)] = 0.0
    """Stop when a smaller share of the last `success_window` URLs succeeds."""
    success_window: Annotated[int, AtLeast(1)] = 1000
    """URLs over which `min_success_rate` is taken."""

    COUNTERPARTS: ClassVar = COUNTERPARTS
    MANNER: ClassVar = frozenset(
        {
            *("url_list", "split", "thread_count", "timeout", "total_timeout", "retries", "max_buffer_bytes"),
            *("allowed_networks", "host_concurrency", "host_rate", "host_timeouts", "user_agent_contact"),
            *("min_success_rate", "success_window", "decode_timeout"),
        }
    )
    """Keys that say where, how fast and how persistently, but not what; they may change on the way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_buffer_bytes < self.max_body_bytes:
            raise ValueError(
                f"max_buffer_bytes must hold one body of max_body_bytes, got {self.max_buffer_bytes}"
            )
        if self.is_local and self.verify_hash is not None:
            raise ValueError("verify_hash is for images that are fetched; leave it out")
        self._check_additional()
        for text in (self.user_agent_token or "", self.user_agent_contact or ""):
            if not (text.isascii() and text.isprintable()):
                raise ValueError(
                    f"user_agent_token and user_agent_contact must be printable ASCII, got {text!r}"
                )
        for network in self.allowed_networks:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ValueError(f"allowed_networks must be such as 10.0.0.0/8: {error}") from error

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide what is made."""
        return {key: value for key, value in to_dict(self).items() if key not in self.MANNER}

    def _check_additional(self) -> None:
        for name in self.save_additional_columns:
            if name in INDEX_SCHEMA.names:
                raise ValueError(
                    f"save_additional_columns: the index has a column {name!r} of its own; leave it out, or "
                    "rename that of the list"
                )
        if self.save_additional_columns and self.input_format in ("images", "txt"):
            raise ValueError(
                f"save_additional_columns is for lists with columns, not for input_format={self.input_format}"
            )

    @property
    def is_local(self) -> bool:
        """Whether the images lie on disk already."""
        return self.input_format == "images" or self.image_col is not None

    @property
    def is_here(self) -> bool:
        """Whether the list lies on this machine."""
        return open_folder(self.url_list).local_path is not None

    @property
    def path(self) -> Path:
        """The list, where it lies on this machine."""
        path = open_folder(self.url_list).local_path
        assert path is not None, f"{self.url_list} is elsewhere"
        return path

    @property
    def root(self) -> Path:
        """The folder that the files of the list are in, or below."""
        return self.path if self.path.is_dir() else folder_of(self.path)

    def list_files(self) -> list[Path]:
        """The files of a list that is here, in the order they are read; a ConfigError if there is none."""
        return list_files(self.path, self.input_format, split=self.split)
