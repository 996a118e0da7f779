"""Compiles the kernels of the corpus; README.md says how to run this."""

import os
import re
from pathlib import Path

os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import kernels
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HERE = Path(__file__).parent
TILE = dict(BM=64, BN=32, BK=32)
BOTH = (80, 90)

# File name: kernel, types of the arguments in order, constants, targets, options.
CORPUS = {
    "matmul_f16": (kernels.matmul, "*fp16 *fp16 *fp16 i32 i32 i32", TILE | dict(TRANSPOSED=False), BOTH, {}),
    "matmul_i8": (kernels.matmul, "*i8 *i8 *i32 i32 i32 i32", TILE | dict(TRANSPOSED=True), BOTH, {}),
    "matmul_e4m3": (kernels.matmul, "*fp8e4nv *fp8e4nv *fp32 i32 i32 i32", TILE | dict(TRANSPOSED=True), (90,), {}),
    "matmul_int4": (kernels.matmul_int4, "*fp16 *i32 *fp16 *fp16 i32 i32 i32", TILE | dict(GROUP=32), BOTH, {}),
    "matmul_cluster": (kernels.matmul, "*fp16 *fp16 *fp16 i32 i32 i32", dict(BM=128, BN=64, BK=32, TRANSPOSED=False), (90,), dict(num_ctas=2)),
    "matmul_descriptors": (kernels.matmul_descriptors, "tensordesc<fp16[64,32]> tensordesc<fp16[32,32]> tensordesc<fp16[64,32]> i32", TILE, (90,), {}),
    "matmul_specialized": (kernels.matmul_specialized, "tensordesc<fp16[64,32]> tensordesc<fp16[32,32]> tensordesc<fp16[64,32]> i32 i32", TILE | dict(TILES=2), (90,), {}),
    "split_k": (kernels.split_k, "*fp16 *fp16 *fp32 i32 i32", dict(BM=32, BN=32, BK=32), BOTH, {}),
    "ordered_split_k": (kernels.ordered_split_k, "*fp16 *fp16 *fp32 *i32 i32 i32", dict(BM=32, BN=32, BK=32), BOTH, {}),
    "attention": (kernels.attention, "*fp16 *fp16 *fp16 *fp16 i32 fp32", dict(D=32, BM=64, BN=32), BOTH, {}),
    "softmax": (kernels.softmax, "*fp32 *fp32 i32", dict(BLOCK=512), BOTH, {}),
    "rms_norm": (kernels.rms_norm, "*bf16 *fp32 *bf16 i32 fp32", dict(BLOCK=256), BOTH, {}),
    "scan_and_reduce": (kernels.scan_and_reduce, "*fp32 *fp32 *i32", dict(ROWS=16, COLUMNS=64), BOTH, {}),
    "sort_rows": (kernels.sort_rows, "*fp32 *fp32", dict(ROWS=4, COLUMNS=64), BOTH, {}),
    "histogram": (kernels.histogram, "*i32 *i32 i32", dict(BLOCK=512, BINS=32), BOTH, {}),
    "random_bits": (kernels.random_bits, "*i32 i32", dict(BLOCK=256), BOTH, {}),
    "sine": (kernels.sine, "*fp64 *fp64 i32", dict(BLOCK=128), BOTH, {}),
}


def compiled(kernel, types, constants, target, options):
    names = [name for name in kernel.arg_names if name not in constants]
    types = dict(zip(names, types.split(), strict=True))
    position = kernel.arg_names.index
    # Pointers are aligned and sizes are multiples of 16, as the launcher would find them to be.
    divisible = [name for name in names if types[name].startswith("*") or name in ("M", "N", "K", "LENGTH", "n")]
    source = ASTSource(
        kernel,
        {name: types.get(name, "constexpr") for name in kernel.arg_names},
        {(position(name),): value for name, value in constants.items()},
        {(position(name),): [["tt.divisibility", 16]] for name in divisible},
    )
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=dict(num_warps=4, num_stages=3) | options)


def text(result):
    """The PTX, with file names instead of paths and what the launcher needs in the first line."""
    ptx = re.sub(r'(\.file\s+\d+\s+)"[^"]*?([^"/]+)"', r'\1"\2"', result.asm["ptx"])
    # The line table is in .loc; DWARF sections repeat it and name folders.
    ptx = re.sub(r"\s*\.section\s+\.debug_\w+\s*\{.*?\n\s*\}", "\n", ptx, flags=re.S)
    return f"// dynamic shared bytes: {result.metadata.shared}\n{ptx.strip()}\n"


for name, (kernel, types, constants, targets, options) in CORPUS.items():
    for target in targets:
        ptx = text(compiled(kernel, types, constants, target, options))
        architecture = re.search(r"\.target (\w+)", ptx).group(1)
        (HERE / f"{name}.{architecture}.ptx").write_text(ptx)
