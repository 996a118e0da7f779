"""A 4-bit matrix multiply in Triton, to compare with: out[M, N] = x[M, K] * ((q - zero) * scale)[N, K]^T.

The layout is chosen for Triton, not for a checkpoint: one byte holds the codes of inputs i and i + 64 of
a group of 128, so that both halves of a group meet contiguous activations and no nibble is interleaved.
Groups are split over blocks (split K); partial sums are added atomically in f16, as is common in
published Triton kernels.
"""

import triton
import triton.language as tl

GROUP = 128


@triton.jit
def w4a16(
    x, packed, scales, zeros, out, m, n, k,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, SPLIT_K: tl.constexpr,
):  # fmt: skip
    """x [m, k] f16, packed [n, k / 2] u8, scales and zeros [k / GROUP, n] f16, out [m, n] f16."""
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tokens = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    half = tl.arange(0, GROUP // 2)
    row_there, token_there = rows < n, tokens < m
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for group in range(tl.program_id(1), k // GROUP, SPLIT_K):
        at = group * (GROUP // 2) + half
        codes = tl.load(packed + rows[None, :] * (k // 2) + at[:, None], mask=row_there[None, :], other=0)
        scale = tl.load(scales + group * n + rows, mask=row_there, other=0.0)[None, :]
        zero = tl.load(zeros + group * n + rows, mask=row_there, other=0.0)[None, :]
        inputs = x + tokens[:, None] * k + group * GROUP + half[None, :]
        first = tl.load(inputs, mask=token_there[:, None], other=0.0)
        second = tl.load(inputs + GROUP // 2, mask=token_there[:, None], other=0.0)
        total = tl.dot(first, ((codes & 15).to(tl.float16) - zero) * scale, total)
        total = tl.dot(second, ((codes >> 4).to(tl.float16) - zero) * scale, total)
    place = out + tokens[:, None] * n + rows[None, :]
    there = token_there[:, None] & row_there[None, :]
    if SPLIT_K == 1:
        tl.store(place, total.to(tl.float16), mask=there)
    else:
        tl.atomic_add(place, total.to(tl.float16), mask=there)


# Few, since each is compiled for every token tile: what a section of a benchmark has time for.
_CONFIGS = [
    triton.Config({"BLOCK_N": block_n, "SPLIT_K": split_k}, num_warps=warps, num_stages=4)
    for block_n, warps in ((32, 4), (64, 4), (128, 8))
    for split_k in (1, 4)
]
_tuned = triton.autotune(configs=_CONFIGS, key=["m", "n", "k"], reset_to_zero=["out"])(w4a16)


def matmul(x, packed, scales, zeros, out):
    """Fills `out`; the fastest configuration is found at the first call of a shape."""
    (m, k), n = x.shape, packed.shape[0]
    block_m = max(16, min(64, triton.next_power_of_2(m)))
    out.zero_()

    def grid(meta):
        return triton.cdiv(n, meta["BLOCK_N"]), meta["SPLIT_K"], triton.cdiv(m, block_m)

    _tuned[grid](x, packed, scales, zeros, out, m, n, k, GROUP=GROUP, BLOCK_M=block_m)
    return out
