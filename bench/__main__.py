"""Owns the list of benchmarks: `python -m bench` makes tables and figures from raw results.

It measures nothing; with --check it writes nothing and says which tables are out of date.
"""

import argparse
import sys

from bench import (
    algorithms_emnist,
    allocator,
    dealing,
    diloco,
    fedavg_mnist,
    frontier,
    frontier_wire,
    gwpf_emnist,
    homework,
    image_loader,
    links,
    overhead,
    pipelines,
    policy_overhead,
    render,
    softmax_oracle,
)
from bench.harness import publish, stale

BENCHMARKS = (
    overhead.BENCHMARK,
    policy_overhead.BENCHMARK,
    allocator.BENCHMARK,
    dealing.BENCHMARK,
    image_loader.BENCHMARK,
    render.BENCHMARK,
    gwpf_emnist.BENCHMARK,
    softmax_oracle.BENCHMARK,
    homework.BENCHMARK,
    algorithms_emnist.BENCHMARK,
    fedavg_mnist.BENCHMARK,
    diloco.BENCHMARK,
    pipelines.BENCHMARK,
    links.BENCHMARK,
    frontier_wire.BENCHMARK,
    frontier.BENCHMARK,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench", description="Tables and figures from raw results"
    )
    parser.add_argument("--check", action="store_true", help="only compare")
    if parser.parse_args().check:
        old = [path.name for benchmark in BENCHMARKS for path in stale(benchmark)]
        sys.exit(f"out of date: {', '.join(old)}; run python -m bench" if old else 0)
    for benchmark in BENCHMARKS:
        publish(benchmark)


if __name__ == "__main__":
    main()
