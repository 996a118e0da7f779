"""Kernels of the corpus, in Triton. Matrices lie rows first without gaps; C[M,N] = A[M,K] * B[K,N]."""

import triton
import triton.language as tl


@triton.jit
def matmul(a, b, c, M, N, K, TRANSPOSED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Any element types; with TRANSPOSED, B is stored as [N,K]. Sizes need not fit the tiles."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    exact: tl.constexpr = tl.int32 if a.dtype.element_ty == tl.int8 else tl.float32
    acc = tl.zeros((BM, BN), dtype=exact)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        x = tl.load(a + m[:, None] * K + k[None, :], mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        if TRANSPOSED:
            at = n[None, :] * K + k[:, None]
        else:
            at = k[:, None] * N + n[None, :]
        y = tl.load(b + at, mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        acc = tl.dot(x, y, acc, out_dtype=exact)
    out = acc.to(c.dtype.element_ty)
    tl.store(c + m[:, None] * N + n[None, :], out, mask=(m[:, None] < M) & (n[None, :] < N))


@triton.jit
def matmul_int4(a, packed, scales, c, M, N, K, GROUP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """packed[K/8,N] holds eight values q of a column, lowest first; a weight is (q - 8) * scale."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        x = tl.load(a + m[:, None] * K + k[None, :], mask=m[:, None] < M, other=0.0)
        word = tl.load(packed + (k[:, None] // 8) * N + n[None, :])
        scale = tl.load(scales + (k[:, None] // GROUP) * N + n[None, :])
        value = (word >> (k[:, None] % 8 * 4)) & 15
        acc = tl.dot(x, (value - 8).to(tl.float16) * scale, acc)
    tl.store(c + m[:, None] * N + n[None, :], acc.to(tl.float16), mask=m[:, None] < M)


@triton.jit
def matmul_descriptors(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Tiles come and go through tensor maps."""
    m = tl.program_id(0) * BM
    n = tl.program_id(1) * BN
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(a.load([m, k]), b.load([k, n]), acc)
    c.store([m, n], acc.to(tl.float16))


@triton.jit
def matmul_specialized(a, b, c, K, TILES_M, TILES: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Warps of their own load the tiles; every thread block computes TILES tiles of C."""
    for tile in tl.range(tl.program_id(0) * TILES, tl.program_id(0) * TILES + TILES, warp_specialize=True):
        m = tile % TILES_M * BM
        n = tile // TILES_M * BN
        acc = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, K, BK):
            acc = tl.dot(a.load([m, k]), b.load([k, n]), acc)
        c.store([m, n], acc.to(tl.float16))


@triton.jit
def slice_product(a, b, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, part, parts):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(part * BK, K, BK * parts):
        k = first + tl.arange(0, BK)
        acc = tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :]), acc)
    return acc, m[:, None] * N + n[None, :]


@triton.jit
def split_k(a, b, c, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Slices of K are added up by atomics, in any order."""
    acc, at = slice_product(a, b, N, K, BM, BN, BK, tl.program_id(2), tl.num_programs(2))
    tl.atomic_add(c + at, acc)


@triton.jit
def ordered_split_k(a, b, c, turns, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Slices of K are added up in order: each thread block waits for its turn at the tile."""
    part = tl.program_id(2)
    acc, at = slice_product(a, b, N, K, BM, BN, BK, part, tl.num_programs(2))
    turn = turns + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    while tl.atomic_add(turn, 0, sem="acquire") != part:
        pass
    if part > 0:
        acc += tl.load(c + at)
    tl.store(c + at, acc)
    tl.debug_barrier()
    tl.atomic_add(turn, 1, sem="release")


@triton.jit
def attention(q, k, v, out, LENGTH, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Causal; one head for each program_id(1). `scale` includes log2(e)."""
    base = tl.program_id(1) * LENGTH * D
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    d = tl.arange(0, D)
    query = tl.load(q + base + row[:, None] * D + d[None, :])
    largest = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    for first in range(0, (tl.program_id(0) + 1) * BM, BN):
        column = first + tl.arange(0, BN)
        key = tl.load(k + base + column[None, :] * D + d[:, None])
        score = tl.dot(query, key) * scale
        score = tl.where(row[:, None] >= column[None, :], score, float("-inf"))
        now = tl.maximum(largest, tl.max(score, 1))
        p = tl.exp2(score - now[:, None])
        shrink = tl.exp2(largest - now)
        total = total * shrink + tl.sum(p, 1)
        value = tl.load(v + base + column[:, None] * D + d[None, :])
        acc = tl.dot(p.to(tl.float16), value, acc * shrink[:, None])
        largest = now
    tl.store(out + base + row[:, None] * D + d[None, :], (acc / total[:, None]).to(tl.float16))


@triton.jit
def softmax(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * n + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < n
    v = tl.load(x + at, mask=inside, other=float("-inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + at, e / tl.sum(e, 0), mask=inside)


@triton.jit
def rms_norm(x, weight, y, n, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0) * n
    squares = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        i = first + tl.arange(0, BLOCK)
        v = tl.load(x + row + i, mask=i < n, other=0.0).to(tl.float32)
        squares += v * v
    factor = tl.rsqrt(tl.sum(squares, 0) / n + epsilon)
    for first in range(0, n, BLOCK):
        i = first + tl.arange(0, BLOCK)
        v = tl.load(x + row + i, mask=i < n, other=0.0).to(tl.float32)
        w = tl.load(weight + i, mask=i < n)
        tl.store(y + row + i, (v * factor * w).to(tl.bfloat16), mask=i < n)


@triton.jit
def scan_and_reduce(x, sums, where, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Running sums down the columns, and where each row is largest."""
    row = tl.arange(0, ROWS)
    at = row[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    v = tl.load(x + at)
    tl.store(sums + at, tl.cumsum(v, 0))
    tl.store(where + row, tl.argmax(v, 1))


@triton.jit
def sort_rows(x, y, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    tl.store(y + at, tl.sort(tl.load(x + at), 1))


@triton.jit
def histogram(x, bins, n, BLOCK: tl.constexpr, BINS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    counts = tl.histogram(tl.load(x + i, mask=i < n, other=0), BINS, mask=i < n)
    tl.atomic_add(bins + tl.arange(0, BINS), counts)


@triton.jit
def random_bits(y, seed, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.randint(seed, i))


@triton.jit
def sine(x, y, n, BLOCK: tl.constexpr):
    """In f64; large arguments go through a device function."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + i, tl.sin(tl.load(x + i, mask=i < n, other=0.0)), mask=i < n)
