"""What a training whose settings are `auto` takes: the most rows at once that fit into its GPUs by the estimates.

None of what is chosen changes what is learned, beyond rounding (docs/scale.md), so none of it is part of a key. A
setting that is given stays, whether it fits or not.
"""

from __future__ import annotations

from speed.core.machine import GIGABYTE
from speed.data.costs.memory import RESERVED, Fit, Footprint, training_bytes
from speed.data.costs.model_shapes import Shape
from speed.data.trainings import Dpo, Sft


def choices(shape: Shape, footprint: Footprint, config: Sft | Dpo, gpus: int, partitioned: bool) -> list[Fit]:
    """Each choice that the settings leave, the fastest first: with activations kept before computed again, and with
    more rows at once before fewer.

    Args:
        gpus: of all machines together.
        partitioned: whether they share one model, as ZeRO-3 does.
    """
    share = config.batch_size // gpus
    given = min(footprint.micro_batch or share, share)
    is_free = footprint.auto_rows and not (isinstance(config, Dpo) and config.sft_weight)
    rows = [number for number in range(share, 0, -1) if share % number == 0] if is_free else [given]
    shared = gpus if partitioned else 1
    found = []
    for checkpointing in (False, True) if footprint.auto_checkpointing else (footprint.checkpointing,):
        for number in rows:
            tokens = number * config.texts_a_row * config.max_length
            taken = training_bytes(shape, footprint, config, tokens, checkpointing, shared) / GIGABYTE + RESERVED
            found.append(Fit(number, checkpointing, gpus, taken))
    return found


def first_that_fits(
    shape: Shape, footprint: Footprint, config: Sft | Dpo, gigabytes: float, gpus: int, partitioned: bool
) -> Fit:
    """The first choice that fits; the smallest where none does."""
    made = choices(shape, footprint, config, gpus, partitioned)
    return next((fit for fit in made if fit.gigabytes <= gigabytes), min(made, key=lambda fit: fit.gigabytes))
