"""Times of PyTorch's own matrix multiplies for the shapes of Qwen2.5-32B, as one JSON object.

The protocol is qtune's: weights are rotated so that the L2 cache is cold, launches are replayed from
a CUDA graph between two events, and the median of several samples counts.
"""

import json
import statistics
import sys

import torch

SHAPES = {"qkv": (7168, 5120), "o": (5120, 5120), "gate_up": (55296, 5120), "down": (5120, 27648)}
TOKENS = (1, 2, 4, 8, 16, 32, 64)
GROUP = 128
SAMPLES = 11
LAUNCHES = 20


def copies(weight_bytes):
    """Copies of the weights that together are twice the L2 cache, two at least."""
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
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


def main():
    peers = {"torch-fp16": fp16, "torch-int4-g128": int4}
    results = []
    for shape, (n, k) in SHAPES.items():
        for m in TOKENS:
            for peer, run in peers.items():
                row = {"peer": peer, "shape": shape, "n": n, "k": k, "m": m}
                try:
                    row["time_us"], row["samples_us"] = run(n, k, m)
                except (RuntimeError, AttributeError) as error:
                    row["error"] = str(error).splitlines()[0]
                results.append(row)
    device = torch.cuda.get_device_properties(0)
    json.dump({"torch": torch.__version__, "gpu": device.name, "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
