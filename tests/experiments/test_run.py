"""Engines: what is asked for gets done once, whoever is killed."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch

from secateurs.errors import InputError
from secateurs.experiments.run import RETRIES, plan_line, run
from secateurs.experiments.spec import (
    PeerCell,
    Rows,
    SearchCell,
    TicketCell,
    describe,
    key,
    needs,
    title,
    with_needs,
)
from secateurs.experiments.store import Store
from secateurs.optimizers import SGD, AdamW
from secateurs.tickets import TicketConfig
from secateurs.training import PhaseConfig
