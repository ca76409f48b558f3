// SPDX-License-Identifier: GPL-2.0
/*
 * The guest of a TD is a list of exits. One line adds one, for the next
 * TDH.VP.ENTER that finds it at the head of its TD's list:
 *
 *   td=N ept=GPA			EPT violation on a private GPA
 *   td=N accept=GPA ept=GPA		the same, after TDG.MEM.PAGE.ACCEPT
 *   td=N mapgpa=GPA size=BYTES		TDG.VP.VMCALL<MapGPA>
 *   td=N raw=RAX			any value of RAX
 *
 * An empty list is TDG.VP.VMCALL<ReportFatalError>: the guest never waits.
 */
#include <linux/kstrtox.h>
#include <linux/string.h>

#include "softtdx.h"

/* TDX_EXIT_REASON in RAX 31:0: SDM, appendix C, and 77 for TDCALL. */
#define EXIT_EPT_VIOLATION	48
#define EXIT_TDCALL		77
#define EPT_VIOLATION_WRITE	BIT_ULL(1)

/* GHCI: TDG.VP.VMCALL sub-functions in R11. */
#define VMCALL_MAP_GPA			0x10001
#define VMCALL_REPORT_FATAL_ERROR	0x10003

/* A vendor's code: KVM wants bits 15:0 of R12 to be zero. */
#define FATAL_ERROR_CODE	0xdead0000ULL

static struct td *td_by_seq(u32 seq)
{
	int i;

	for (i = 0; i < SOFTTDX_MAX_TDS; i++)
		if (softtdx_tds[i].used && softtdx_tds[i].seq == seq)
			return &softtdx_tds[i];
	return NULL;
}

static int script_parse(char *line, u32 *td, struct vp_exit *exit)
{
	char *token, *value;
	bool given = false;
	u64 number;

	while ((token = strsep(&line, " \t\n"))) {
		if (!*token)
			continue;
		value = strchr(token, '=');
		if (!value)
			return -EINVAL;
		*value++ = '\0';
		if (kstrtou64(value, 0, &number))
			return -EINVAL;
		if (!strcmp(token, "td")) {
			*td = number;
			continue;
		}
		given = true;
		if (!strcmp(token, "accept")) {
			exit->accept = number | 1;
		} else if (!strcmp(token, "ept")) {
			exit->rax = EXIT_EPT_VIOLATION;
			exit->rcx = EPT_VIOLATION_WRITE;
			exit->r8 = number;
		} else if (!strcmp(token, "mapgpa")) {
			exit->rax = EXIT_TDCALL;
			exit->r11 = VMCALL_MAP_GPA;
			exit->r12 = number;
		} else if (!strcmp(token, "size")) {
			exit->r13 = number;
		} else if (!strcmp(token, "raw")) {
			exit->rax = number;
		} else {
			return -EINVAL;
		}
	}
	return given ? 0 : -EINVAL;
}

/* 0, -EINVAL for a line that says nothing, -ENOENT for no such TD, -ENOSPC. */
int script_add(char *line)
{
	struct vp_exit exit = {};
	unsigned long flags;
	struct td *td;
	u32 seq = 0;
	int ret = script_parse(line, &seq, &exit);

	if (ret)
		return ret;
	raw_spin_lock_irqsave(&softtdx_lock, flags);
	td = td_by_seq(seq);
	if (!td)
		ret = -ENOENT;
	else if (td->script_tail - td->script_head == SOFTTDX_SCRIPT_LEN)
		ret = -ENOSPC;
	else
		td->script[td->script_tail++ % SOFTTDX_SCRIPT_LEN] = exit;
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	return ret;
}

struct vp_exit script_next(struct td *td)
{
	if (td->script_head != td->script_tail)
		return td->script[td->script_head++ % SOFTTDX_SCRIPT_LEN];
	return (struct vp_exit) {
		.rax = EXIT_TDCALL,
		.r11 = VMCALL_REPORT_FATAL_ERROR,
		.r12 = FATAL_ERROR_CODE,
	};
}
