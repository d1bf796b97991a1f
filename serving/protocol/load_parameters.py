"""The parameters of a request to load a model, which mean the same over both protocols."""

from collections.abc import Mapping, Sequence

from ridgeline.errors import Malformed
from serving.override import Override
from serving.served import LoadFault

FILE_PREFIX = "file:"


def override_of(
    config: str | None, *, files: Mapping[str, bytes], others: Sequence[str]
) -> Override | None:
    """What the parameters put in the place of the repository's; None where they say nothing.

    `files` have the names of their parameters. Raises InvalidInput for other parameters and paths
    that lead elsewhere, LoadFault for files without a configuration.
    """
    if others:
        raise Malformed(f"unrecognized load parameter {others[0][:80]!r}")
    if config is None:
        if files:
            raise LoadFault("failed to load: files need the parameter 'config' beside them")
        return None
    return Override(config, {name.removeprefix(FILE_PREFIX): data for name, data in files.items()})
