"""The keys of official option files, each with a value such as it may have.

Lists of names alone: which keys the authors' files have, kind of file by kind of file. The values
are ours, and small where a network would be large.
"""

from __future__ import annotations

from typing import Any


def under(section: str, names: str) -> str:
    """Keys of one section, from their names."""
    return " ".join(f"{section}.{name}" for name in names.split())


PSNR = "val.metrics.psnr.type val.metrics.psnr.crop_border val.metrics.psnr.test_y_channel"
SCORES = f"{PSNR} {PSNR.replace('psnr', 'ssim')}"
BETTER = "val.metrics.psnr.better val.metrics.ssim.better val.pbar"
GENERAL = "name model_type scale num_gpu manual_seed"
OPTIM_G = "train.optim_g.type train.optim_g.lr train.optim_g.weight_decay train.optim_g.betas"
STEPS = "train.scheduler.type train.scheduler.milestones train.scheduler.gamma"
PIXEL = "train.pixel_opt.type train.pixel_opt.loss_weight train.pixel_opt.reduction"
LOGGER = (
    "logger.print_freq logger.save_checkpoint_freq logger.use_tb_logger logger.wandb.project "
    "logger.wandb.resume_id dist_params.backend dist_params.port"
)
LENGTH = "train.total_iter train.warmup_iter"
WEIGHTS = "path.pretrain_network_g path.strict_load_g"
TRAIN = f"{GENERAL} {OPTIM_G} {PIXEL} {LENGTH} {LOGGER} {WEIGHTS} path.resume_state"
HQ = (
    "datasets.train.name datasets.train.type datasets.train.dataroot_gt "
    "datasets.train.io_backend.type datasets.train.gt_size datasets.train.use_hflip "
    "datasets.train.use_rot datasets.train.num_worker_per_gpu datasets.train.batch_size_per_gpu "
    "datasets.train.dataset_enlarge_ratio datasets.train.prefetch_mode"
)
PAIRS = f"{HQ} datasets.train.dataroot_lq"
SHUFFLED = "datasets.train.use_shuffle"
LISTED = "datasets.train.meta_info_file"
NAMED = "datasets.train.filename_tmpl"


SET = "name type dataroot_gt dataroot_lq io_backend.type"
VAL = f"{under('datasets.val', SET)} val.val_freq val.save_img"
TEST = f"{GENERAL} {under('datasets.test_1', SET)} {WEIGHTS} val.save_img val.suffix"
EMA = "path.param_key_g train.ema_decay"
SWIN = (
    "network_g.type network_g.upscale network_g.in_chans network_g.img_size "
    "network_g.img_range network_g.depths network_g.embed_dim network_g.num_heads "
    "network_g.upsampler network_g.resi_connection"
)
WINDOWS = f"{SWIN} network_g.window_size network_g.mlp_ratio"
HAT = (
    f"{WINDOWS} network_g.compress_ratio network_g.squeeze_factor network_g.conv_scale "
    "network_g.overlap_ratio"
)
ATD = (
    f"{WINDOWS} network_g.category_size network_g.num_tokens network_g.reducted_dim "
    "network_g.convffn_kernel_size network_g.use_checkpoint"
)
HIT = f"{SWIN} network_g.base_win_size network_g.expansion_factor network_g.hier_win_ratios"
CAT = (
    "network_g.type network_g.upscale network_g.in_chans network_g.img_size network_g.img_range "
    "network_g.depth network_g.embed_dim network_g.num_heads network_g.mlp_ratio "
    "network_g.resi_connection network_g.split_size_0 network_g.split_size_1 network_g.block_name"
)
UNET = (
    "network_g.type network_g.in_chans network_g.img_size network_g.split_size_0 "
    "network_g.split_size_1 network_g.depth network_g.dim network_g.num_heads "
    "network_g.mlp_ratio network_g.num_refinement_blocks network_g.bias network_g.dual_pixel_task"
)
KERNELS = under(
    "datasets.train",
    "blur_kernel_size kernel_list kernel_prob sinc_prob blur_sigma betag_range betap_range "
    "blur_kernel_size2 kernel_list2 kernel_prob2 sinc_prob2 blur_sigma2 betag_range2 "
    "betap_range2 final_sinc_prob",
)
CHAIN = (
    f"{KERNELS} resize_prob resize_range gaussian_noise_prob noise_range poisson_scale_range "
    "gray_noise_prob jpeg_range second_blur_prob resize_prob2 resize_range2 gaussian_noise_prob2 "
    "noise_range2 poisson_scale_range2 gray_noise_prob2 jpeg_range2 gt_size queue_size"
)
OPTIM_D = OPTIM_G.replace("optim_g", "optim_d")
PERCEPTUAL = under(
    "train.perceptual_opt",
    "type layer_weights.conv1_2 layer_weights.conv2_2 layer_weights.conv3_4 "
    "layer_weights.conv4_4 layer_weights.conv5_4 vgg_type use_input_norm range_norm "
    "perceptual_weight style_weight criterion",
)
GAN = (
    f"{OPTIM_D} {PERCEPTUAL} network_d.type network_d.num_in_ch network_d.num_feat "
    "network_d.skip_connection train.gan_opt.type train.gan_opt.gan_type "
    "train.gan_opt.real_label_val train.gan_opt.fake_label_val train.gan_opt.loss_weight "
    "train.net_d_iters train.net_d_init_iters l1_gt_usm percep_gt_usm gan_gt_usm"
)
TASKS = "datasets.train.task datasets.val.task datasets.val.filename_tmpl"
TESTED_TASK = "datasets.test_1.task datasets.test_1.filename_tmpl"
REAL_DENOISING = (
    "datasets.train.geometric_augs datasets.train.mini_batch_sizes datasets.train.iters "
    "datasets.train.gt_sizes train.use_grad_clip train.scheduler.type train.scheduler.periods "
    "train.scheduler.restart_weights train.scheduler.eta_mins train.mixing_augs.mixup "
    "train.mixing_augs.mixup_beta train.mixing_augs.use_identity val.window_size val.rgb2bgr "
    "val.use_image val.max_minibatch"
)
FINE = f"{TRAIN} {STEPS} {PAIRS} {VAL} {SCORES}"
IDLE = "suffix save_img print_network"

# kind of file, to its keys and to the values that make it that kind
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "SwinIR train": (
        f"{TRAIN} {STEPS} {PAIRS} {VAL} {PSNR} {LISTED} {NAMED} {WINDOWS} train.ema_decay",
        {"model_type": "SwinIRModel", "network_g.type": "SwinIR"},
    ),
    "SRFormer train": (
        f"{FINE} {SHUFFLED} {NAMED} {WINDOWS} print_network",
        {"model_type": "SwinIRModel", "network_g.type": "SRFormer"},
    ),
    "SRFormer test": (
        f"{TEST} {SCORES} {WINDOWS} {IDLE} path.param_key_g",
        {"model_type": "SRModel", "network_g.type": "SRFormer"},
    ),
    "SRFormerv2 test": (
        f"{TEST} {SCORES} {WINDOWS} {IDLE} path.param_key_g network_g.squeeze_dim",
        {
            "model_type": "SRModel",
            "network_g.type": "SRFormerv2",
            "network_g.window_size": 12,
            "network_g.squeeze_dim": 12,
        },
    ),
    "HAT train": (
        f"{FINE} {SHUFFLED} {LISTED} {BETTER} {HAT} {EMA}",
        {"model_type": "HATModel", "network_g.type": "HAT"},
    ),
    "HAT train on ImageNet": (
        f"{TRAIN} {STEPS} {HQ} {VAL} {SCORES} {SHUFFLED} {LISTED} {BETTER} {HAT} train.ema_decay",
        {
            "model_type": "HATModel",
            "network_g.type": "HAT",
            "datasets.train.type": "ImageNetPairedDataset",
        },
    ),
    "HAT train real": (
        f"{TRAIN} {STEPS} {HQ} {SHUFFLED} {LISTED} {HAT} {EMA} {CHAIN} {OPTIM_D} gt_usm",
        {
            "model_type": "RealHATMSEModel",
            "network_g.type": "HAT",
            "datasets.train.type": "RealESRGANDataset",
        },
    ),
    "HAT train real with a discriminator": (
        f"{TRAIN} {STEPS} {HQ} {SHUFFLED} {LISTED} {HAT} {EMA} {CHAIN} {GAN}",
        {
            "model_type": "RealHATGANModel",
            "network_g.type": "HAT",
            "datasets.train.type": "RealESRGANDataset",
        },
    ),
    "HAT test in tiles": (
        f"{TEST} {SCORES} {HAT} path.param_key_g tile.tile_size tile.tile_pad",
        {"model_type": "HATModel", "network_g.type": "HAT"},
    ),
    "HAT test without gt": (
        f"{TEST} {HAT} path.param_key_g tile.tile_size tile.tile_pad".replace(
            "datasets.test_1.dataroot_gt ", ""
        ),
        {
            "model_type": "HATModel",
            "network_g.type": "HAT",
            "datasets.test_1.type": "SingleImageDataset",
        },
    ),
    "DRCT train": (
        f"{FINE} {SHUFFLED} {LISTED} {BETTER} {HAT} {EMA}",
        {"model_type": "DRCTModel", "network_g.type": "DRCT"},
    ),
    "DRCT train real with a discriminator": (
        f"{TRAIN} {STEPS} {HQ} {SHUFFLED} {LISTED} {HAT} {EMA} {CHAIN} {GAN}",
        {
            "model_type": "RealDRCTGANModel",
            "network_g.type": "DRCT",
            "datasets.train.type": "RealESRGANDataset",
        },
    ),
    "DRCT train real": (
        f"{TRAIN} {STEPS} {HQ} {SHUFFLED} {LISTED} {HAT} {EMA} {CHAIN} {OPTIM_D} gt_usm",
        {
            "model_type": "RealDRCTMSEModel",
            "network_g.type": "DRCT",
            "datasets.train.type": "RealESRGANDataset",
        },
    ),
    "DRCT test": (
        f"{TEST} {SCORES} {HAT} path.param_key_g",
        {"model_type": "DRCTModel", "network_g.type": "DRCT"},
    ),
    "ATD train": (
        f"{FINE} {NAMED} {ATD} {EMA} datasets.train.pin_memory datasets.train.persistent_workers",
        {"model_type": "ATDModel", "network_g.type": "ATD", "datasets.train.prefetch_mode": "cuda"},
    ),
    "ATD test": (
        f"{TEST} {SCORES} {ATD} path.param_key_g",
        {"model_type": "ATDModel", "network_g.type": "ATD"},
    ),
    "CAT train": (
        f"{TRAIN} {STEPS} {PAIRS} {VAL} {PSNR} {SHUFFLED} {NAMED} {TASKS} {CAT} "
        "network_g.upsampler",
        {"model_type": "CATModel", "network_g.type": "CAT", "network_g.upsampler": "pixelshuffle"},
    ),
    "CAT train on JPEG": (
        f"{TRAIN} {STEPS} {PAIRS} {VAL} {PSNR} {SHUFFLED} {NAMED} {TASKS} {CAT} val.use_chop "
        "train.pixel_opt.eps",
        {
            "model_type": "CATModel",
            "network_g.type": "CAT",
            "scale": 1,
            "network_g.upscale": 1,
            "network_g.in_chans": 1,
            "network_g.img_range": 255.0,
            "datasets.train.task": "CAR",
            "datasets.val.task": "CAR",
            "train.pixel_opt.type": "CharbonnierLoss",
        },
    ),
    "CAT train on real noise": (
        f"{TRAIN} {PAIRS} {VAL} {PSNR} {SHUFFLED} {NAMED} {UNET} {REAL_DENOISING}".replace(
            "datasets.train.use_hflip datasets.train.use_rot ", ""
        ),
        {
            "model_type": "CATModel_Unet",
            "network_g.type": "CAT_Unet",
            "scale": 1,
            "datasets.train.type": "Dataset_PairedImage",
            "datasets.val.type": "Dataset_PairedImage",
            "train.scheduler.type": "CosineAnnealingRestartCyclicLR",
            "train.optim_g.type": "AdamW",
            "network_g.depth": [1, 1, 1, 1],
            "network_g.num_heads": [2, 2, 2, 2],
            "network_g.split_size_0": [4, 4, 4, 4],
            "network_g.split_size_1": [0, 0, 0, 0],
        },
    ),
    "CAT test": (
        f"{TEST} {SCORES} {TESTED_TASK} {CAT} val.use_chop network_g.upsampler",
        {"model_type": "CATModel", "network_g.type": "CAT"},
    ),
    "CAT test with self-ensemble": (
        f"{TEST} {SCORES} {TESTED_TASK} {CAT} val.selfensemble_testing network_g.upsampler",
        {"model_type": "CATSEModel", "network_g.type": "CAT"},
    ),
    "HiT-SR train": (
        f"{FINE} {SHUFFLED} {NAMED} {TASKS} {HIT}",
        {"model_type": "HITModel", "network_g.type": "HiT_SRF"},
    ),
    "HiT-SR test": (
        f"{TEST} {SCORES} {TESTED_TASK} {HIT} val.use_chop",
        {"model_type": "HITModel", "network_g.type": "HiT_SIR"},
    ),
    "HiT-SR test without gt": (
        f"{TEST} {HIT} val.use_chop".replace("datasets.test_1.dataroot_gt ", ""),
        {
            "model_type": "HITModel",
            "network_g.type": "HiT_SNG",
            "datasets.test_1.type": "SingleImageDataset",
        },
    ),
}

_LISTS: dict[str, Any] = {
    "kernel_list": ["iso", "aniso"],
    "kernel_prob": [0.7, 0.3],
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "jpeg_range": [30, 95],
    "blur_kernel_size": 21,
}
_VALUES: dict[str, Any] = {
    "name": "some_run",
    "scale": 2,
    "num_gpu": "auto",
    "manual_seed": 0,
    "suffix": None,
    "gt_size": 96,
    "queue_size": 180,
    "datasets.train.type": "PairedImageDataset",
    "datasets.val.type": "PairedImageDataset",
    "datasets.test_1.type": "PairedImageDataset",
    "datasets.train.gt_size": 128,
    "datasets.train.gt_sizes": [64, 96, 128],
    "datasets.train.mini_batch_sizes": [8, 4, 2],
    "datasets.train.iters": [30, 20, 50],
    "datasets.train.prefetch_mode": None,
    "network_g.upscale": 2,
    "network_g.in_chans": 3,
    "network_g.img_size": 64,
    "network_g.window_size": 8,
    "network_g.img_range": 1.0,
    "network_g.depths": [2, 2],
    "network_g.depth": [2, 2],
    "network_g.embed_dim": 48,
    "network_g.dim": 32,
    "network_g.num_heads": [2, 2],
    "network_g.mlp_ratio": 2,
    "network_g.upsampler": "pixelshuffle",
    "network_g.resi_connection": "1conv",
    "network_g.compress_ratio": 3,
    "network_g.squeeze_factor": 8,
    "network_g.conv_scale": 0.01,
    "network_g.overlap_ratio": 0.5,
    "network_g.category_size": 16,
    "network_g.num_tokens": 8,
    "network_g.reducted_dim": 4,
    "network_g.convffn_kernel_size": 5,
    "network_g.base_win_size": [8, 8],
    "network_g.expansion_factor": 2,
    "network_g.hier_win_ratios": [0.5, 1, 2, 4],
    "network_g.split_size_0": [4, 4],
    "network_g.split_size_1": [0, 0],
    "network_g.block_name": "CATB_axial",
    "network_g.num_refinement_blocks": 1,
    "network_d.type": "UNetDiscriminatorSN",
    "network_d.num_in_ch": 3,
    "network_d.num_feat": 64,
    "train.optim_g.type": "Adam",
    "train.optim_d.type": "Adam",
    "train.scheduler.type": "MultiStepLR",
    "train.scheduler.milestones": [50, 80],
    "train.scheduler.periods": [40, 60],
    "train.scheduler.restart_weights": [1, 1],
    "train.scheduler.eta_mins": [0.0003, 0.000001],
    "train.total_iter": 100,
    "train.warmup_iter": -1,
    "train.pixel_opt.type": "L1Loss",
    "train.perceptual_opt.type": "PerceptualLoss",
    "train.perceptual_opt.vgg_type": "vgg19",
    "train.perceptual_opt.criterion": "l1",
    "train.gan_opt.type": "GANLoss",
    "train.gan_opt.gan_type": "vanilla",
    "val.metrics.psnr.type": "calculate_psnr",
    "val.metrics.ssim.type": "calculate_ssim",
    "val.suffix": "x2",
    "val.max_minibatch": 8,
    "val.window_size": 8,
    "tile.tile_size": 256,
    "tile.tile_pad": 32,
    "logger.wandb.project": None,
    "logger.wandb.resume_id": None,
    "dist_params.backend": "nccl",
    "dist_params.port": 29500,
}
# by the key's last name
_BY_NAME: dict[str, Any] = {
    "name": "Set5",
    "dataroot_gt": "datasets/HR",
    "dataroot_lq": "datasets/LR",
    "meta_info_file": "datasets/list.txt",
    "filename_tmpl": "{}x2",
    "task": "SR",
    "type": "disk",
    "num_worker_per_gpu": 2,
    "batch_size_per_gpu": 4,
    "dataset_enlarge_ratio": 1,
    "lr": 2e-4,
    "weight_decay": 0,
    "betas": [0.9, 0.99],
    "gamma": 0.5,
    "reduction": "mean",
    "better": "higher",
    "crop_border": 2,
    "pretrain_network_g": "experiments/pretrained_models/some.pth",
    "param_key_g": "params_ema",
    "resume_state": None,
    "print_freq": 100,
    "val_freq": 5000.0,
    "save_checkpoint_freq": 5000.0,
    "net_d_iters": 1,
    "net_d_init_iters": 0,
    "ema_decay": 0.999,
    "mixup_beta": 1.2,
    "eps": 0.001,
}
# last names of switches, and of weights and probabilities
_SWITCHES = (
    "use_hflip use_rot use_shuffle geometric_augs pin_memory persistent_workers strict_load_g "
    "use_checkpoint bias dual_pixel_task skip_connection use_input_norm range_norm mixup "
    "use_identity use_grad_clip test_y_channel save_img pbar use_chop selfensemble_testing "
    "rgb2bgr use_image print_network use_tb_logger l1_gt_usm percep_gt_usm gan_gt_usm gt_usm"
)


def _value(key: str) -> Any:
    if key in _VALUES:
        return _VALUES[key]
    name = key.split(".")[-1]
    if name in _SWITCHES.split():
        return name not in ("dual_pixel_task", "bias", "use_checkpoint")
    listed = _LISTS.get(name.removesuffix("2"))
    return listed if listed is not None else _BY_NAME.get(name, 0.5)


def official_file(kind: str) -> dict[str, Any]:
    """An option file with the keys of a kind of official file."""
    keys, special = FILES[kind]
    options: dict[str, Any] = {}
    for key in keys.split():
        *sections, name = key.split(".")
        here = options
        for section in sections:
            here = here.setdefault(section, {})
        here[name] = special.get(key, _value(key))
    return options
