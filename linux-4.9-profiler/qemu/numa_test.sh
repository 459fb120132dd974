#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Inside the guest: trains under Sentinel with fast memory on node 0 and slow memory on node 1, and beside it with stock
# TensorFlow, each on one of the two processors. Arguments: Python with Sentinel, Python with stock TensorFlow, training
# script, folder for results, managed steps, steps of the stock training.
set -eu
sentinel_python=$1 stock_python=$2 script=$3 results=$4 managed_steps=$5 stock_steps=$6
# As `sentinel doctor` asks for: the kernel must not move pages by itself, and a huge page would take neighbours along.
echo 0 >/proc/sys/kernel/numa_balancing
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
export TF_CPP_MIN_LOG_LEVEL=2

"$stock_python" -W ignore "$script" "$results/stock.losses" --steps "$stock_steps" &
stock=$!
SENTINEL_FAST=20% SENTINEL_SLOW=node:1 SENTINEL_FAST_NODES=node:0 SENTINEL_WARMUP_STEPS=2 SENTINEL_FAILURE=strict \
    SENTINEL_CHECK_PLACEMENT=7 \
    "$sentinel_python" -W ignore "$script" "$results/sentinel.losses" --managed-steps "$managed_steps" \
    --report "$results/sentinel.json"
wait "$stock"
