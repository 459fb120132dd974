#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Inside the guest: TensorFlow's profiled step under the kernel's profiler. Arguments: Python with Sentinel, Python with
# stock TensorFlow, script, folder for results.
set -eu
sentinel_python=$1 stock_python=$2 script=$3 results=$4
echo 0 >/proc/sys/kernel/numa_balancing
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
export TF_CPP_MIN_LOG_LEVEL=2 SENTINEL_FAILURE=strict SENTINEL_WARMUP_STEPS=1000

"$stock_python" -W ignore "$script" stock --losses "$results/stock.losses" &
stock=$!
SENTINEL_PROFILER=kernel:exact SENTINEL_FAST=1M SENTINEL_SLOW=emulated:optane SENTINEL_TRACE="$results/exact.trace" \
    "$sentinel_python" -W ignore "$script" exact "$results/exact.json" --trace "$results/exact.trace"
wait "$stock"
SENTINEL_PROFILER=kernel SENTINEL_FAST=20% SENTINEL_SLOW=node:1 SENTINEL_FAST_NODES=node:0 \
    SENTINEL_TRACE="$results/lstm.trace" \
    "$sentinel_python" -W ignore "$script" lstm "$results/lstm.json" --trace "$results/lstm.trace" \
    --losses "$results/sentinel.losses"
echo always >/sys/kernel/mm/transparent_hugepage/enabled
SENTINEL_PROFILER=kernel SENTINEL_POLICY=slow_only SENTINEL_SLOW=emulated:optane SENTINEL_MIGRATION_GBPS=100 \
    "$sentinel_python" -W ignore "$script" huge "$results/huge.json"
