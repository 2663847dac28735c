"""Delivers the journals of runs to MLflow; the only file that imports mlflow.

Import it where it is used, not at the top of a module: mlflow takes 1.5 s to load.
"""

import fcntl
import json
import logging
import os
import platform
import posixpath
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlparse

from pipelines.journal import FILE_NAME, Journal, Record

# Read by mlflow when it is imported; the delivery thread does the retrying.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils import validation as limits
from requests import HTTPError

logging.getLogger("alembic").setLevel(logging.WARNING)

LONGEST_BACKOFF_SECONDS = 10.0
REJECTIONS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
STATE_NAME = "delivered.json"
WINDOW_RECORDS = 200
