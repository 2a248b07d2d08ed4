"""Take the learned fusion out of a trained run, which leaves the walls as planes.

    python benchmarks/without_fusion.py --run RUN --output DIR
    vlwm eval DIR --data DATA

What a whole run has learned in its fusion is the difference of the scores of RUN and DIR: motion,
edges and baselines are the same, since none of them reads the fusion. The thresholds are chosen
again on the run's own validation windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vlwm.core.config.load import config_from_dict
from vlwm.core.evaluation.load import find_checkpoint
from vlwm.core.model.checkpoint import load_world_model, save_checkpoint
from vlwm.core.model.checkpoint_content import CheckpointContent
from vlwm.core.model.memory.fusion import FrameFusion
from vlwm.core.model.tokenizer.conv_blocks import bias_of
from vlwm.core.training.runtime.distributed import Ranks
from vlwm.core.training.startup.train_data import open_data
from vlwm.core.training.tasks.world_task import WorldTask

CPU = torch.device("cpu")


def main() -> None:
    given = _arguments()
    checkpoint = find_checkpoint(given.run)
    model, content = load_world_model(checkpoint, CPU)
    config = config_from_dict(content["config"], where=str(checkpoint))
    silence(model.memory.fusion)
    task = WorldTask(model, open_data(config, lambda: None), config, CPU, 0, Ranks())
    task.load_state(CheckpointContent.of(content))
    model.eval()
    with torch.no_grad():
        numbers = task.validate(lambda short: None, config.data.samples_per_gpu)
    given.output.mkdir(parents=True)
    save_checkpoint(
        given.output / "best.pth", {**content, "model": dict(model.state_dict()), **task.state()}
    )
    print({name: round(value, 4) for name, value in numbers.items()})


def silence(fusion: FrameFusion) -> None:
    """Set the residual of a fusion to 0, in place."""
    torch.nn.init.zeros_(fusion.conv_out.weight)
    torch.nn.init.zeros_(bias_of(fusion.conv_out))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder or checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="a folder that is not there yet")
    return parser.parse_args()


if __name__ == "__main__":
    main()
