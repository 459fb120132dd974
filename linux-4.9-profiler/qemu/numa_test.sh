#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Inside the guest: trains under Sentinel with fast memory on node 0 and slow memory on node 1, and beside it with stock
# TensorFlow; in the full form, trains once more while moves are made to fail. Each is bound to one of the two processors: a
# page that moves must vanish from the caches of every processor that runs the process, and an emulated processor answers
# when the host gets round to it, which takes longer than the move. Arguments:
# Python with Sentinel, Python with stock TensorFlow, folder of the training scripts, folder for results, managed steps,
# steps of the stock training, batch, `short` or `full`.
set -eu
sentinel_python=$1 stock_python=$2 scripts=$3 results=$4 managed_steps=$5 stock_steps=$6 batch=$7 form=$8
# As `sentinel doctor` asks for: the kernel must not move pages by itself. Huge pages come where a program asks for them.
echo 0 >/proc/sys/kernel/numa_balancing
echo madvise >/sys/kernel/mm/transparent_hugepage/enabled
export TF_CPP_MIN_LOG_LEVEL=2
export SENTINEL_FAST=20% SENTINEL_SLOW=node:1 SENTINEL_FAST_NODES=node:0 SENTINEL_WARMUP_STEPS=2

taskset 2 "$stock_python" -W ignore "$scripts/digits_lstm.py" "$results/stock.losses" --steps "$stock_steps" --batch "$batch" &
stock=$!
SENTINEL_FAILURE=strict SENTINEL_CHECK_PLACEMENT=7 taskset 1 "$sentinel_python" -W ignore "$scripts/digits_lstm.py" \
    "$results/sentinel.losses" --managed-steps "$managed_steps" --batch "$batch" --report "$results/sentinel.json"
wait "$stock"
[ "$form" = full ] || exit 0

taskset 2 "$stock_python" -W ignore "$scripts/digits_lstm.py" "$results/stock-failing.losses" --steps 75 --batch 4096 &
stock=$!
# The published policy puts buffers of the same layers into one unit, and such units have huge pages inside.
SENTINEL_POLICY=hpca21 SENTINEL_FAST=40% SENTINEL_FAILURE=strict taskset 1 "$sentinel_python" -W ignore \
    "$scripts/digits_lstm.py" "$results/huge.losses" --managed-steps 3 --batch "$batch" --report "$results/huge.json"
SENTINEL_FAILURE=advisory taskset 1 "$sentinel_python" -W ignore "$scripts/failing_moves.py" "$results/failing.losses" \
    "$results/failing.json"
SENTINEL_FAILURE=strict taskset 1 "$sentinel_python" -W ignore "$scripts/failing_moves.py" --until-stopped \
    "$results/stopped.json"
wait "$stock"
