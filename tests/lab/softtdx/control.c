// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/softtdx/:
 *
 *   inject	write rules (inject.c), or "clear"; read them with their counts
 *   script	write what guests do next (script.c)
 *   reset	write 1: forget everything
 *   state	counters, and one line per TD
 *   owned	one line per frame that a TD owns
 *   frames	frames that the allocator took or gave while a TD owned them
 *   calls	the SEAMCALLs
 *   watch	write a TD's number: the frames of its guest are watched; read
 *		how many they are, and how many the allocator took back since
 *   mirror	write lines that make KVM's mirror page table wrong (mirror.c)
 *   selftest	reading it tests the module (selftest.c)
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "softtdx.h"

/* Runs @take on each line of what was written; stops at the first error. */
static ssize_t write_lines(const char __user *buf, size_t count,
			   int (*take)(char *line))
{
	char *text, *at, *line;
	int ret = 0;

	if (count > PAGE_SIZE)
		return -E2BIG;
	text = memdup_user_nul(buf, count);
	if (IS_ERR(text))
		return PTR_ERR(text);
	at = text;
	while (!ret && (line = strsep(&at, "\n"))) {
		line = strim(line);
		if (*line)
			ret = take(line);
	}
	kfree(text);
	return ret ?: count;
}

static int inject_line(char *line)
{
	unsigned long flags;

	if (strcmp(line, "clear"))
		return inject_add(line);
	raw_spin_lock_irqsave(&softtdx_lock, flags);
	inject_clear();
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	return 0;
}

static int reset_line(char *line)
{
	if (strcmp(line, "1"))
		return -EINVAL;
	softtdx_reset();
	return 0;
}

static int inject_show(struct seq_file *m, void *v)
{
	inject_show_rules(m);
	return 0;
}

static ssize_t inject_write(struct file *file, const char __user *buf, size_t count,
			    loff_t *pos)
{
	return write_lines(buf, count, inject_line);
}
DEFINE_SHOW_STORE_ATTRIBUTE(inject);

static ssize_t write_script(struct file *file, const char __user *buf, size_t count,
			    loff_t *pos)
{
	return write_lines(buf, count, script_add);
}

static const struct file_operations script_fops = {
	.write = write_script,
};

static ssize_t write_reset(struct file *file, const char __user *buf, size_t count,
			   loff_t *pos)
{
	return write_lines(buf, count, reset_line);
}

static const struct file_operations reset_fops = {
	.write = write_reset,
};

static ssize_t write_mirror(struct file *file, const char __user *buf, size_t count,
			    loff_t *pos)
{
	return write_lines(buf, count, mirror_flip);
}

static const struct file_operations mirror_fops = {
	.write = write_mirror,
};

static int watch_line(char *line)
{
	u32 td;
	int ret = kstrtou32(line, 10, &td);

	if (!ret)
		truth_watch(td);
	return ret;
}

static int watch_show(struct seq_file *m, void *v)
{
	truth_show_watch(m);
	return 0;
}

static ssize_t watch_write(struct file *file, const char __user *buf, size_t count,
			   loff_t *pos)
{
	return write_lines(buf, count, watch_line);
}
DEFINE_SHOW_STORE_ATTRIBUTE(watch);

static int state_show(struct seq_file *m, void *v)
{
	truth_show_state(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

static int owned_show(struct seq_file *m, void *v)
{
	truth_show_owned(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(owned);

static int frames_show(struct seq_file *m, void *v)
{
	truth_show_frames(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(frames);

static int calls_show(struct seq_file *m, void *v)
{
	truth_show_calls(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(calls);

static int selftest_show(struct seq_file *m, void *v)
{
	selftest_run(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(selftest);

static int __init control_init(void)
{
	struct dentry *dir = debugfs_create_dir("softtdx", NULL);

	debugfs_create_file("inject", 0600, dir, NULL, &inject_fops);
	debugfs_create_file("script", 0200, dir, NULL, &script_fops);
	debugfs_create_file("reset", 0200, dir, NULL, &reset_fops);
	debugfs_create_file("watch", 0600, dir, NULL, &watch_fops);
	debugfs_create_file("mirror", 0200, dir, NULL, &mirror_fops);
	debugfs_create_file("state", 0400, dir, NULL, &state_fops);
	debugfs_create_file("owned", 0400, dir, NULL, &owned_fops);
	debugfs_create_file("frames", 0400, dir, NULL, &frames_fops);
	debugfs_create_file("calls", 0400, dir, NULL, &calls_fops);
	debugfs_create_file("selftest", 0400, dir, NULL, &selftest_fops);
	return 0;
}
late_initcall(control_init);
