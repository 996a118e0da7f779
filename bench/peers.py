"""Times of PyTorch's own matrix multiplies, and of one in Triton where it is installed, for the shapes
of Qwen2.5-32B, as one JSON object in the file that the argument names. It is written anew with each
result, so that what is stopped leaves what it has.

The protocol is qtune's: weights are rotated so that the L2 cache is cold, launches are replayed from
a CUDA graph between two events, and the median of several samples counts.
"""

import json
import os
import statistics
import subprocess
import sys

import torch

try:
    import triton_w4a16
except ImportError as missing:
    triton_w4a16, TRITON_MISSING = None, str(missing)

SHAPES = {"qkv": (7168, 5120), "o": (5120, 5120), "gate_up": (55296, 5120), "down": (5120, 27648)}
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 512)
GROUP = 128
SAMPLES = 11
LAUNCHES = 20


def copies(weight_bytes):
    """Copies of the weights that together are twice the L2 cache, two at least."""
    l2 = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return max(2, min(32, 2 * l2 // weight_bytes + 1))


def time_us(call, weights):
    """Median microseconds of one call; `call` takes one of `weights`."""
    for weight in weights:
        call(weight)
    torch.cuda.synchronize()
    rounds = -(-LAUNCHES // len(weights))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for weight in weights:
                call(weight)
    samples = []
    for _ in range(SAMPLES + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1000 / (rounds * len(weights)))
    return statistics.median(samples[2:]), samples[2:]


def fp16(n, k, m):
    weights = [torch.randn(n, k, device="cuda", dtype=torch.float16)]
    weights += [weights[0].clone() for _ in range(copies(2 * n * k) - 1)]
    x = torch.randn(m, k, device="cuda", dtype=torch.float16)
    return time_us(lambda w: torch.nn.functional.linear(x, w), weights)


def int4(n, k, m):
    codes = torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8)
    packed = torch._convert_weight_to_int4pack(codes, 8)
    weights = [packed] + [packed.clone() for _ in range(copies(n * k // 2) - 1)]
    params = torch.rand(k // GROUP, n, 2, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    return time_us(lambda w: torch._weight_int4pack_mm(x, w, GROUP, params), weights)


def triton_int4(n, k, m):
    if triton_w4a16 is None:
        raise RuntimeError(f"Triton is not installed: {TRITON_MISSING}")
    packed = torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8)
    weights = [packed] + [packed.clone() for _ in range(copies(n * k // 2) - 1)]
    scales = torch.rand(k // GROUP, n, device="cuda", dtype=torch.float16) / 64
    zeros = torch.randint(0, 16, (k // GROUP, n), device="cuda").to(torch.float16)
    x = torch.randn(m, k, device="cuda", dtype=torch.float16)
    out = torch.empty(m, n, device="cuda", dtype=torch.float16)
    check_triton(x, packed, scales, zeros, out)
    return time_us(lambda w: triton_w4a16.matmul(x, w, scales, zeros, out), weights)


def check_triton(x, packed, scales, zeros, out):
    """A peer that is wrong is no peer: the first rows are compared with a dense multiply."""
    rows = min(64, packed.shape[0])
    codes = packed[:rows].view(rows, -1, GROUP // 2)
    codes = torch.cat((codes & 15, codes >> 4), dim=2).to(torch.float32)
    parameter = lambda p: p[:, :rows].t().to(torch.float32)[:, :, None]
    dense = ((codes - parameter(zeros)) * parameter(scales)).reshape(rows, -1)
    wanted = x.to(torch.float32) @ dense.t()
    error = triton_w4a16.matmul(x, packed, scales, zeros, out)[:, :rows].to(torch.float32) - wanted
    share = (error.norm() / wanted.norm()).item()
    if not share < 0.01:
        raise RuntimeError(f"Triton's result is off by {share:.3g} of its norm")


def conditions():
    """Clocks, power and driver as nvidia-smi tells them; nothing where it is missing."""
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,temperature.gpu"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields.split(","), told.splitlines()[0].split(", ")))


def write(path, report):
    """Replaces the file as a whole."""
    with open(path + ".part", "w") as file:
        json.dump(report, file)
    os.replace(path + ".part", path)


def main():
    peers = {"torch-fp16": fp16, "torch-int4-g128": int4, "triton-int4-g128": triton_int4}
    torch.cuda.set_device(int(os.environ.get("DEVICE", "cuda:0").removeprefix("cuda:")))
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    report = {"torch": torch.__version__, "gpu": device.name, "before": conditions(), "results": []}
    for shape, (n, k) in SHAPES.items():
        for m in TOKENS:
            for peer, run in peers.items():
                row = {"peer": peer, "shape": shape, "n": n, "k": k, "m": m}
                try:
                    row["time_us"], row["samples_us"] = run(n, k, m)
                except Exception as error:  # a compiler's errors have types of their own
                    row["error"] = next(iter(str(error).splitlines()), repr(error))
                report["results"].append(row)
                write(sys.argv[1], report)
    write(sys.argv[1], {**report, "after": conditions()})


if __name__ == "__main__":
    main()
