"""What `auto_complete_config` of a model is given: the configuration, to be filled in."""

import json
from typing import Any


class ModelConfig:
    """A model configuration, as Triton hands it to a Python model.

    What the configuration says already must not be contradicted: ValueError.
    """

    def __init__(self, model_config: str) -> None:
        self._config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as it stands."""
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """The largest batch, in rows; 0 for a model without a batch axis."""
        given = self._config.get("max_batch_size") or 0
        if given > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {given}, but in auto-complete-config "
                f"function for model '{self._config.get('name')}' specified max_batch_size "
                f"{max_batch_size}"
            )
        self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Let requests wait for each other's company."""
        for other in ("sequence_batching", "ensemble_scheduling"):
            if other in self._config:
                raise ValueError(f"the configuration has {other}: dynamic batching is impossible")
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """Say whether a request gets any number of responses: {"decoupled": True}."""
        if set(transaction_policy_dict) != {"decoupled"}:
            raise ValueError("the transaction policy takes the property 'decoupled'")
        self._config["model_transaction_policy"] = dict(transaction_policy_dict)

    def add_input(self, input: dict[str, Any]) -> None:
        """An input: {"name", "data_type", "dims", "optional"}."""
        self._add("input", input, ("name", "data_type", "dims", "optional"))

    def add_output(self, output: dict[str, Any]) -> None:
        """An output: {"name", "data_type", "dims"}."""
        self._add("output", output, ("name", "data_type", "dims"))

    def _add(self, kind: str, tensor: dict[str, Any], known: tuple[str, ...]) -> None:
        name, where = tensor.get("name"), self._config.get("name")
        if unknown := sorted(set(tensor) - set(known)):
            raise ValueError(
                f"{kind} {name!r} in auto-complete-config function for model {where!r} contains "
                f"property {unknown} other than {', '.join(known)}"
            )
        for key in ("name", "data_type", "dims"):
            if key not in tensor:
                raise ValueError(f"{kind} {name!r} of model {where!r} lacks the property {key!r}")
        tensors = self._config.setdefault(kind, [])
        for given in tensors:
            if given["name"] != name:
                continue
            for key, what in (("data_type", "datatype"), ("dims", "dims")):
                said = given.get(key)
                if said and said != "TYPE_INVALID" and said != tensor[key]:
                    raise ValueError(
                        f"unable to load model {where!r}, configuration expects {what} {said} "
                        f"for {kind} {name!r}, model provides {tensor[key]}"
                    )
            given.update(tensor)
            return
        tensors.append(dict(tensor))
