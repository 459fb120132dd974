#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# The guest's first program: makes the host's file system the root, with a layer above it that takes all writes, runs the
# job's command there, leaves its status beside it and switches the machine off.

/bin/busybox mkdir -p /proc /sys /dev /lower /layer /new
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

give_up() {
    echo "guest: $1"
    poweroff -f
}

while read -r module; do
    insmod "/modules/$module.ko" || give_up "module $module cannot be loaded"
done </modules/order

share=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,$share,cache=loose" hostroot /lower || give_up "the host's root cannot be mounted"
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /new ||
    give_up "no layer can be put above the host's root"

# The job's folder has the same path inside as outside.
job="$(sed -n 's/.*sentinel_job=\([^ ]*\).*/\1/p' /proc/cmdline)"
mkdir -p "/new$job"
mount -t 9p -o "rw,$share" job "/new$job" || give_up "the job's folder cannot be mounted"
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/shm
mount -t tmpfs shm /new/dev/shm
ifconfig lo up

chroot /new /bin/sh "$job/command" >"/new$job/out" 2>"/new$job/err" </dev/null
echo $? >"/new$job/status"
sync
poweroff -f
