"""Loading TensorFlow: fast on every CPU, and without the notes it writes meanwhile."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator

# Read by TensorFlow when it is imported; what the user has set stays.
_ENVIRONMENT = {
    # TensorFlow leaves oneDNN off on CPUs it does not know, where it halves the time of LeNet-5.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # What the C++ core logs; errors that matter arrive as Python exceptions besides.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Written before the core has read its log level, each time it is loaded with oneDNN asked for.
_NOISE = (b"before absl::InitializeLog()", b"oneDNN custom operations are on")


def load() -> None:
    """Import TensorFlow and Keras; call it before any module that imports them."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with filtered_stderr(_NOISE):
        importlib.import_module("keras")
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def filtered_stderr(noise: tuple[bytes, ...]) -> Iterator[None]:
    """Hold back what is written to standard error, C++ included; afterwards write it, less noise.

    `noise` are parts of lines to leave out. Python's redirect_stderr does not see the core's lines.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not any(part in line for part in noise):
                    os.write(2, line)
