#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Inside the guest: the tests, then the fuzzer as root and as nobody, then what the kernel has to say.
# Arguments: folder of the programs, calls for each fuzzer, seed, groups of tests (none: all).
set -u
programs=$1 calls=$2 seed=$3
shift 3
chmod 666 /dev/sentinel
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
"$programs/guest_tests" "$@"
tests=$?
if [ "$calls" -gt 0 ]; then
    # Whoever writes the same addresses as the fuzzers; they must not see it.
    "$programs/fuzz" 0 0 victim &
    victim=$!
    "$programs/fuzz" "$calls" "$seed" 0 &
    root=$!
    "$programs/fuzz" "$calls" "$((seed + 1))" 65534
    nobody=$?
    wait "$root"
    root=$?
    kill -9 "$victim"
    wait "$victim" 2>/dev/null
    echo "# fuzzers ended with $root and $nobody"
    [ "$root" = 0 ] && [ "$nobody" = 0 ] || tests=1
    sleep 1
fi
# With every file closed nothing may be left.
for name in sessions pages; do
    echo "held $name $(cat /sys/module/sentinel_profiler/parameters/$name)"
done
if [ -e /sys/kernel/debug/kmemleak ]; then
    # The first scan only notes what may have leaked, and what is young is not told.
    echo scan >/sys/kernel/debug/kmemleak
    sleep 6
    echo scan >/sys/kernel/debug/kmemleak && echo "searched for leaks"
    cat /sys/kernel/debug/kmemleak
fi
dmesg
exit "$tests"
