"""The users' config vocabulary: which key is ours, which maps, which is set aside.

Every key of a file is in one of three lists: a field of `schema.Config`, a foreign key
in common use that maps to one (`runner.max_epochs`), or a foreign key that is known and set aside
(`train_pipeline`). A key in none is an error with the nearest right one.
"""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vlwm.core.config.config_file import merge
from vlwm.core.config.from_dict import unknown_key
from vlwm.core.config.schema import Config
from vlwm.core.errors import ConfigError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAPPED: dict[str, str] = {
    "runner.max_epochs": "max_epochs",
    "total_epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "optimizer_config.grad_clip": "grad_clip",
    "optimizer_wrapper.optimizer": "optimizer",
    "optim_wrapper.optimizer": "optimizer",
    "optim_wrapper.clip_grad": "grad_clip",
    "grad_max_norm": "grad_clip.max_norm",
    "lr_config.warmup_steps": "lr_config.warmup_iters",
    "lr_config.min_lr_ratio": "",  # resolved against optimizer.lr below
    "checkpoint_config.max_keep": "checkpoint_config.max_keep_ckpts",
    "evaluation.max_samples": "evaluation.max_windows",
    "data_path": "data_root",
    "batch_size": "data.samples_per_gpu",
    "num_workers": "data.workers_per_gpu",
    "grid_range": "point_cloud_range",
    "pc_range": "point_cloud_range",
    "num_history": "history_frames",
    "num_future": "future_frames",
    "random_seed": "seed",
    "pretrained": "load_from",
}
"""foreign key -> ours, both dotted; '' is handled by a rule of its own"""

IGNORED: frozenset[str] = _words(
    """
    train_pipeline val_pipeline test_pipeline eval_pipeline dist_params log_level workflow
    resume_from work_dir gpu_ids cudnn_benchmark find_unused_parameters plugin plugin_dir
    custom_hooks default_scope default_hooks env_cfg visualizer vis_backends auto_scale_lr
    class_names num_classes occ_class_names img_norm_cfg file_client_args dataset_type
    input_modality ida_aug_conf bda_aug_conf opencv_num_threads mp_start_method norm_cfg
    train_cfg test_cfg launcher device experiment_name description version notes
    train_dataloader val_dataloader test_dataloader custom_imports
    train_dataset_config val_dataset_config train_wrapper_config val_wrapper_config
    train_loader val_loader loss_input_convertion start_frame mid_frame end_frame offset
    eval_with_pose
    grid_size occ_size occupancy_threshold total_frames sequence_length frame_interval
    evaluation.metric evaluation.pipeline evaluation.save_best evaluation.start evaluation.rule
    evaluation.by_epoch evaluation.metrics
    log_config.hooks checkpoint_config.by_epoch checkpoint_config.type checkpoint_config.out_dir
    runner.type lr_config.warmup_ratio lr_config.by_epoch lr_config.warmup_by_epoch
    optimizer_config.type optimizer_config.cumulative_iters optimizer.eps optimizer.amsgrad
    optimizer.paramwise_cfg optimizer.foreach optim_wrapper.type
    data.train data.val data.test data.shuffle data.pin_memory data.drop_last
    data.persistent_workers data.prefetch_factor data.train_dataloader data.val_dataloader
    data.test_dataloader
    fp16.loss_scale fp16.enabled bf16.enabled fp16.opt_level
    """
)
"""foreign keys that are known and set aside (the part of a dict is dotted)"""

_OPEN_DICTS = ("model", "tokenizer", "loss")
"""dicts whose unknown parts of a foreign model are set aside instead of refused"""

_FOREIGN_MODEL = _words(
    """
    vae transformer pose_encoder pose_decoder backbone neck head encoder decoder vqvae
    num_frames num_classes delta_input without_all give_hiddens pose_actions
    img_backbone img_neck pts_bbox_head use_grid_mask pretrained init_cfg
    history_frames future_frames grid_size occ_size voxel_size point_cloud_range
    embed_dims hidden_dim latent_dim num_layers pose_dim ego_dim input_channels base_channel
    focal_loss dice_loss loss_cfg use_checkpoint with_cp dropout drop_path norm_cfg
    """
)


@dataclass(frozen=True)
class KeyReport:
    """A file's values under our keys, and what became of the others."""

    values: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    mapped: tuple[tuple[str, str], ...] = ()


def to_vlwm_keys(
    values: Mapping[str, Any], *, where: str, helpers: Collection[str] = ()
) -> KeyReport:
    """Sort a file's keys into ours, mapped ones and known ones that are set aside.

    An unknown name in `helpers`, which another line of the file reads, serves the file alone.

    Raises:
        ConfigError: a key in none of the three lists, with the nearest right one.
    """
    ours: dict[str, Any] = {}
    ignored: list[str] = []
    mapped: list[tuple[str, str]] = []
    for key, value in _flatten(_expand_switches(values)):
        if key == "data.train" and _are_sources(value):
            ours = merge(ours, nested(key, value))
            continue
        target = MAPPED.get(key)
        if target:
            mapped.append((key, target))
            ours = merge(ours, nested(target, value))
        elif key == "lr_config.min_lr_ratio":
            mapped.append((key, "lr_config.min_lr"))
            ours = merge(ours, nested("lr_config.min_lr", _share_of_peak(value, values, where)))
        elif key in IGNORED:
            ignored.append(key)
        elif _is_ours(key):
            ours = merge(ours, nested(key, value))
        elif _foreign_part(key):
            ignored.append(key)
        elif key.split(".")[0] in helpers:
            continue
        else:
            raise _unknown(key, where)
    return KeyReport(ours, tuple(ignored), tuple(mapped))


def _share_of_peak(share: Any, values: Mapping[str, Any], where: str) -> float:
    """Return the lowest learning rate that a share of the peak is.

    Raises:
        ConfigError: share or peak is not a number.
    """
    optimizer = values.get("optimizer", {})
    peak = optimizer.get("lr") if isinstance(optimizer, Mapping) else None
    peak = Config().optimizer.lr if peak is None else peak
    if not isinstance(share, int | float) or not isinstance(peak, int | float):
        raise ConfigError(
            "lr_config.min_lr_ratio should be a number, and optimizer.lr too",
            where=where,
            remedy="write lr_config = dict(min_lr=1e-6) instead",
        )
    return float(share * peak)


def _expand_switches(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `fp16 = dict(...)`, `bf16 = True`, `log_config.interval` relatives into our switches."""
    expanded = dict(values)
    for switch in ("fp16", "bf16"):
        if switch in expanded:
            value = expanded.pop(switch)
            enabled = value.get("enabled", True) if isinstance(value, Mapping) else bool(value)
            expanded["amp"] = expanded.get("amp", False) or enabled
    clip = expanded.get("optimizer_config")
    if isinstance(clip, Mapping) and clip.get("grad_clip", {}) is None:
        expanded["optimizer_config"] = {k: v for k, v in clip.items() if k != "grad_clip"}
    return {k: v for k, v in expanded.items() if v is not None or k == "load_from"}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted leaves, but no deeper than a key that one of the lists names whole."""
    for key, value in values.items():
        full = prefix + str(key)
        whole = full in MAPPED or full in IGNORED or _foreign_part(full)
        if isinstance(value, Mapping) and value and not whole:
            yield from _flatten(value, full + ".")
        else:
            yield full, value


@lru_cache(maxsize=1)
def known_keys() -> dict[str, Any]:
    """Return every dotted key of Config with its type; not to be changed."""
    return dict(_fields(Config, ""))


def _fields(cls: type, prefix: str) -> Iterable[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _fields(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def _are_sources(value: Any) -> bool:
    """Return True for our list of data folders; other packages' data sets have no `root`."""
    dicts = isinstance(value, list | tuple) and all(isinstance(v, Mapping) for v in value)
    return dicts and (not value or any("root" in v for v in value))


def _is_ours(key: str) -> bool:
    return key in known_keys()


def _foreign_part(key: str) -> bool:
    parts = key.split(".")
    return (
        len(parts) > 1 and parts[0] in _OPEN_DICTS and parts[1] in _FOREIGN_MODEL - _own(parts[0])
    )


def _own(group: str) -> set[str]:
    return {k.split(".")[1] for k in known_keys() if k.startswith(group + ".")}


def _unknown(key: str, where: str) -> ConfigError:
    every = {*known_keys(), *MAPPED, *IGNORED}
    head = key.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in every if k.rpartition(".")[0] == head]
    if head and siblings:
        return unknown_key(key, head + ".", siblings, where)
    return unknown_key(key, "", {*every, *(k.split(".")[0] for k in every)}, where)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return `{'a': {'b': 1}}` for `nested('a.b', 1)`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply `key=value` texts of `--set` over a file's values.

    A value is read as a Python literal where it is one, with `dict(a=1)` as in config files, else
    as text.

    Raises:
        ConfigError: no `=`, or an unknown key with the nearest right one.
    """
    result = dict(values)
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text} has no '='", remedy="write --set optimizer.lr=5e-5")
        report = to_vlwm_keys(nested(key.strip(), _literal(raw.strip())), where="--set")
        if report.ignored:
            raise _unknown_override(key.strip())
        result = merge(result, report.values)
    return result


def _unknown_override(key: str) -> ConfigError:
    return ConfigError(f"--set {key} has no effect in vlwm", remedy="docs/training.md lists keys")


class _Dicts(ast.NodeTransformer):
    """Writes `dict(a=1)` as `{'a': 1}`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = [keyword.arg for keyword in node.keywords]
        if (
            not isinstance(node.func, ast.Name)
            or node.func.id != "dict"
            or node.args
            or None in named
        ):
            return node
        keys: list[ast.expr | None] = [ast.Constant(name) for name in named]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(_Dicts().visit(ast.parse(text, mode="eval")))
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
