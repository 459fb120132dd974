// SPDX-License-Identifier: GPL-2.0
/* /dev/sentinel: checks what programs ask for; see uapi/linux/sentinel.h. */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <xen/xen.h>

#include "sentinel_internal.h"

/* Counts that are copied between two chances for others to run. */
#define COPY_AT_ONCE	4096

struct sentinel_machine sentinel_machine;

/* 4096 ranges can be searched in 12 steps; 16 GiB take 64 MiB of counts. The end of addresses is known when it runs. */
struct sentinel_limits sentinel_limits = {
	.ranges = 4096,
	.pages = 4 << 20,
};

static const char * const mechanism_names[] = {
	[SENTINEL_MECHANISM_NONE] = "none",
	[SENTINEL_MECHANISM_RESERVED_BIT] = "reserved bit",
	[SENTINEL_MECHANISM_PROT_NONE] = "no present bit",
};

static long give_info(void __user *argument)
{
	struct sentinel_info info = {
		.abi_version = SENTINEL_ABI_VERSION,
		.mechanism = sentinel_machine.mechanism,
		.not_counted = SENTINEL_NOT_PINNED | SENTINEL_NOT_DMA |
			       SENTINEL_NOT_INTERRUPT |
			       SENTINEL_NOT_SAME_INSTRUCTION |
			       SENTINEL_NOT_SAME_SYSCALL |
			       SENTINEL_NOT_BESIDE_SYSCALL |
			       SENTINEL_NOT_TLB_HIT | SENTINEL_NOT_HUGETLB |
			       SENTINEL_NOT_KERNEL_THREAD |
			       SENTINEL_NOT_COUNTED_BY_BUILD,
		.max_ranges = sentinel_limits.ranges,
		.max_pages = sentinel_limits.pages,
		.page_bytes = SENTINEL_PAGE_BYTES,
		.physical_bits = sentinel_machine.physical_bits,
		.poison_bit = sentinel_machine.bit,
	};

	if (info.mechanism != SENTINEL_MECHANISM_NONE)
		info.features = SENTINEL_FEATURE_EXACT |
				SENTINEL_FEATURE_TLB_MISS |
				SENTINEL_FEATURE_EXACT_THREADS |
				SENTINEL_FEATURE_ATTACH |
				SENTINEL_FEATURE_FLUSH |
				SENTINEL_FEATURES_OF_BUILD;
	strscpy(info.mechanism_name, mechanism_names[info.mechanism],
		sizeof(info.mechanism_name));
	return copy_to_user(argument, &info, sizeof(info)) ? -EFAULT : 0;
}

static long attach(struct sentinel_session *session, void __user *argument)
{
	struct sentinel_attach attach;

	if (copy_from_user(&attach, argument, sizeof(attach)))
		return -EFAULT;
	if (attach.flags)
		return -EINVAL;
	return sentinel_attach(session, attach.pid);
}

/* The first range takes the caller's own process. */
static long take_own(struct sentinel_session *session)
{
	int error;

	if (sentinel_has_process(session))
		return 0;
	error = sentinel_attach(session, 0);
	/* Another thread may have been first, with this file. */
	return sentinel_has_process(session) ? 0 : error;
}

static long take_range(struct sentinel_session *session, struct mm_struct *mm,
		      void __user *argument)
{
	struct sentinel_range range;

	if (copy_from_user(&range, argument, sizeof(range)))
		return -EFAULT;
	return sentinel_add_range(session, mm, range.start, range.bytes);
}

static long start(struct sentinel_session *session, struct mm_struct *mm,
		  void __user *argument)
{
	struct sentinel_start start;

	if (copy_from_user(&start, argument, sizeof(start)))
		return -EFAULT;
	if (start.flags || (start.mode != SENTINEL_MODE_EXACT &&
			    start.mode != SENTINEL_MODE_TLB_MISS))
		return -EINVAL;
	return sentinel_start(session, mm, start.mode);
}

static long read_counts(struct sentinel_session *session,
			void __user *argument)
{
	struct sentinel_count __user *target;
	struct sentinel_count *cells;
	struct sentinel_read read;
	u64 done, some;

	if (copy_from_user(&read, argument, sizeof(read)))
		return -EFAULT;
	cells = sentinel_cells(&session->table, read.start, read.pages);
	if (read.reserved || !read.pages || !cells)
		return -EINVAL;
	target = (struct sentinel_count __user *)(unsigned long)read.counts;
	for (done = 0; done < read.pages; done += some) {
		some = min_t(u64, read.pages - done, COPY_AT_ONCE);
		if (copy_to_user(target + done, cells + done,
				 some * sizeof(*cells)))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static long reset(struct sentinel_session *session, void __user *argument)
{
	struct sentinel_reset reset;

	if (copy_from_user(&reset, argument, sizeof(reset)))
		return -EFAULT;
	if (reset.reserved || reset.flags & ~SENTINEL_RESET_RANGES)
		return -EINVAL;
	return sentinel_reset(session, reset.flags & SENTINEL_RESET_RANGES);
}

static long give_status(struct sentinel_session *session,
			void __user *argument)
{
	struct sentinel_status status = {
		.mode = sentinel_mode(session),
		.ranges = session->table.used,
		.pages = session->table.pages,
		.reads = atomic64_read(&session->reads),
		.writes = atomic64_read(&session->writes),
		.kernel_accesses = atomic64_read(&session->kernel_accesses),
		.steps = atomic64_read(&session->steps),
		.spurious = atomic64_read(&session->spurious),
		.left_open = atomic64_read(&session->left_open),
	};

	return copy_to_user(argument, &status, sizeof(status)) ? -EFAULT : 0;
}

/* The calls that need the session's process. */
static long call(struct sentinel_session *session, struct mm_struct *mm,
		 unsigned int command, void __user *argument)
{
	switch (command) {
	case SENTINEL_IOC_ADD_RANGE:
		return take_range(session, mm, argument);
	case SENTINEL_IOC_START:
		return start(session, mm, argument);
	case SENTINEL_IOC_STOP:
		return sentinel_stop(session, mm);
	case SENTINEL_IOC_READ:
		return read_counts(session, argument);
	case SENTINEL_IOC_RESET:
		return reset(session, argument);
	case SENTINEL_IOC_FLUSH:
		return sentinel_forget_translations(session, mm);
	case SENTINEL_IOC_STATUS:
		return give_status(session, argument);
	default:
		return -ENOTTY;
	}
}

static long sentinel_ioctl(struct file *file, unsigned int command,
			   unsigned long value)
{
	struct sentinel_session *session = file->private_data;
	void __user *argument = (void __user *)value;
	struct mm_struct *mm;
	long result;

	if (command == SENTINEL_IOC_INFO)
		return give_info(argument);
	if (_IOC_TYPE(command) != SENTINEL_IOC_MAGIC)
		return -ENOTTY;
	if (sentinel_machine.mechanism == SENTINEL_MECHANISM_NONE)
		return -ENODEV;
	if (command == SENTINEL_IOC_ATTACH)
		return attach(session, argument);
	if (command == SENTINEL_IOC_ADD_RANGE) {
		result = take_own(session);
		if (result)
			return result;
	}
	mm = sentinel_reach(session);
	result = mutex_lock_killable(&session->lock);
	if (!result) {
		result = sentinel_enter(session, mm);
		if (!result)
			result = call(session, mm, command, argument);
		mutex_unlock(&session->lock);
	}
	/* Its end takes the session's lock. */
	if (!IS_ERR_OR_NULL(mm))
		mmput(mm);
	return result;
}

static int sentinel_open(struct inode *inode, struct file *file)
{
	/* misc_open() has left its own pointer there. */
	file->private_data = sentinel_session_new();
	return file->private_data ? 0 : -ENOMEM;
}

static int sentinel_release(struct inode *inode, struct file *file)
{
	sentinel_session_close(file->private_data);
	return 0;
}

static const struct file_operations sentinel_operations = {
	.owner = THIS_MODULE,
	.open = sentinel_open,
	.release = sentinel_release,
	.unlocked_ioctl = sentinel_ioctl,
	.llseek = noop_llseek,
};

/* Everyone may profile what is his own; the limits are in sentinel_limits. */
static struct miscdevice sentinel_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "sentinel",
	.fops = &sentinel_operations,
	.mode = 0666,
};

/* What is in use now, for root: all are 0 when no file is open and no profiled task is left. */
static int get_counter(char *buffer, const struct kernel_param *parameter)
{
	return sprintf(buffer, "%ld\n",
		       atomic_long_read((atomic_long_t *)parameter->arg));
}

/* The kernel calls this without a look whether it is there, when somebody gives a counter on a command line. */
static int refuse_counter(const char *value, const struct kernel_param *parameter)
{
	return -EPERM;
}

static const struct kernel_param_ops counter_operations = {
	.get = get_counter,
	.set = refuse_counter,
};

module_param_cb(sessions, &counter_operations, &sentinel_sessions, 0400);
module_param_cb(pages, &counter_operations, &sentinel_pages, 0400);
module_param_cb(tasks, &counter_operations, &sentinel_tasks, 0400);

static int __init sentinel_init(void)
{
	int error;

	sentinel_limits.address_end = TASK_SIZE_MAX;
	sentinel_machine.physical_bits = boot_cpu_data.x86_phys_bits;
	sentinel_machine.encryption_mask = sentinel_encryption_mask();
	/* A paravirtual Xen guest's page tables are the hypervisor's. */
	if (!xen_pv_domain()) {
		sentinel_machine.mechanism =
			sentinel_choose(sentinel_machine.physical_bits,
					sentinel_machine.encryption_mask,
					&sentinel_machine.bit);
		sentinel_poison = BIT_ULL(sentinel_machine.bit);
	}
	if (sentinel_machine.mechanism == SENTINEL_MECHANISM_RESERVED_BIT)
		sentinel_free_address_bit(sentinel_machine.bit);
	error = sentinel_platform_init();
	if (error)
		return error;
	error = sentinel_fault_init();
	if (error)
		goto leave_platform;
	error = misc_register(&sentinel_device);
	if (error)
		goto leave_fault;
	pr_info("sentinel: pages are marked by %s (bit %u, %u bit addresses)\n",
		mechanism_names[sentinel_machine.mechanism],
		sentinel_machine.bit, sentinel_machine.physical_bits);
	return 0;
leave_fault:
	sentinel_fault_exit();
leave_platform:
	sentinel_platform_exit();
	return error;
}
device_initcall(sentinel_init);

#ifdef MODULE
/* There is no session any more: each one holds the module. */
static void __exit sentinel_exit(void)
{
	misc_deregister(&sentinel_device);
	/* First who looks at the tasks, then their states. */
	sentinel_fault_exit();
	sentinel_platform_exit();
}
module_exit(sentinel_exit);
#endif
