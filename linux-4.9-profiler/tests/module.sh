#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Inside a guest with Debian's kernel: loads the module, runs the tests, and sees how it goes.
# Arguments: the module, the kernel's module with RAM disks, then those of run.sh.
# What does not go as it should is a line "Bail out!".
set -u
module=$1 brd=$2

bail() {
    echo "Bail out! $1"
    dmesg
    exit 1
}

# Without a free address bit it must say so and leave nothing behind.
if grep -q "address sizes.*: 52 bits physical" /proc/cpuinfo; then
    insmod "$module" 2>/dev/null && bail "the module loads where it cannot work"
    [ -e /sys/module/sentinel_profiler ] || [ -e /dev/sentinel ] && bail "something is left of it"
    dmesg | grep "sentinel: not loaded: bit 51" || bail "the kernel does not say why the module is not loaded"
    printf 'ok 1 - the module says why it is not loaded\n1..1\nheld sessions 0\nheld pages 0\n'
    exit 0
fi
shift 2
programs=$1
insmod "$brd" || bail "there are no RAM disks"
echo 0 >/proc/sys/kernel/ftrace_enabled
insmod "$module" 2>/dev/null && bail "the module loads without the tracer by which it lives"
dmesg | grep -q "sentinel: not loaded: the function tracer refuses" || bail "the kernel does not say that the tracer is off"
echo 1 >/proc/sys/kernel/ftrace_enabled
# What is in use can be read and not be given.
insmod "$module" sessions=1 2>/dev/null && bail "the module takes a number of sessions"
insmod "$module" || bail "the module cannot be loaded"
# Tests that say on which node pages are cannot have the kernel move them as well.
echo 0 >/proc/sys/kernel/numa_balancing
sh "$(dirname "$0")/run.sh" "$@"
status=$?

# In use it stays; otherwise it goes, whoever is left of those that had to do with it.
exec 3<>/dev/sentinel
rmmod sentinel_profiler 2>/dev/null && bail "the module goes while a file is open"
exec 3>&-
mkfifo /tmp/survivors
"$programs/survivors" >/tmp/survivors &
survivors=$!
read -r ready </tmp/survivors
[ "$ready" = ready ] || bail "no survivors"
# Sessions are freed by RCU.
for try in 1 2 3 4 5; do
    rmmod sentinel_profiler 2>/dev/null && break
    sleep 1
done
[ -e /sys/module/sentinel_profiler ] && bail "the module does not go"
kill -USR1 "$survivors"
wait "$survivors" || bail "survivors ended with $?"
insmod "$module" || bail "the module cannot be loaded again"
echo 1 >/proc/sys/kernel/numa_balancing
# It lives by the function tracer: that cannot be switched off, and may trace the same functions.
echo 0 2>/dev/null >/proc/sys/kernel/ftrace_enabled && bail "the tracer can be switched off"
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
cd /sys/kernel/tracing || bail "there is no tracer"
printf '%s\n' exit_to_user_mode_prepare pgtable_bad handle_mm_fault >set_ftrace_filter
echo 64 >buffer_size_kb
echo function >current_tracer
"$programs/guest_tests" exact threads >/tmp/again || bail "after loading again: $(grep '^not ok' /tmp/again)"
echo 0 >tracing_on
traced=$(grep -c 'pgtable_bad <-' trace)
[ "$traced" -gt 0 ] || bail "nothing was traced"
echo nop >current_tracer
rmmod sentinel_profiler || bail "the module does not go again"
echo "# the module went twice; $(grep -c '^ok' /tmp/again) tests passed between, under NUMA balancing and with the same functions traced"
dmesg
exit "$status"
