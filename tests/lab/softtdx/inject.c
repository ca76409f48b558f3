// SPDX-License-Identifier: GPL-2.0
/*
 * Faults by rule. One line adds one rule; the first that matches a SEAMCALL
 * decides. All fields but leaf and one of status, lie, busy may be left out:
 *
 *   leaf=NAME|NUMBER	which SEAMCALL
 *   td=N		only this TD (number since the last reset)
 *   gpa=GPA		only this guest page; for TDH.PHYMEM.* the guest page
 *			that the frame holds or last held
 *   skip=N		let the first N matching calls pass (default 0)
 *   times=N		then apply to N calls (default 1, 0: to all)
 *   status=STATUS	the call fails with this and does nothing
 *   lie=nothing	says success and does nothing
 *   lie=elsewhere	says success and does it to the neighbouring page
 *   lie=denies		does it and says STATUS
 *   busy=PERMILLE	OPERAND_BUSY at random, never twice in a row for a TD,
 *			as contention that a retry with VCPUs kept out resolves;
 *			without times= it applies to all
 */
#include <linux/kstrtox.h>
#include <linux/pfn.h>
#include <linux/string.h>

#include "softtdx.h"

#define MAX_RULES	32
#define NO_GPA		(~0ULL)
#define STATUS_CLASS(status)	(((status) >> 40) & 0xff)
#define CLASS_SEPT	0x0b
#define GPA_MASK	GENMASK_ULL(51, 12)

struct rule {
	u16 leaf;
	u32 td;			/* 0: any */
	u64 gpa;
	u64 skip, times;
	u64 status;
	enum lie lie;
	u32 busy;		/* in thousandths */
	u64 matched, applied;
	u64 busy_tds;		/* TDs whose last matching call was made to fail */
};

static struct rule rules[MAX_RULES];
static int nr_rules;
static u64 random_state = 88172645463325252ULL;

static const char *const lie_names[] = {
	[LIE_NONE] = "none",
	[LIE_NOTHING] = "nothing",
	[LIE_ELSEWHERE] = "elsewhere",
	[LIE_DENIES] = "denies",
};

/* xorshift64: the same storm in every run. */
static u32 random_permille(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % 1000;
}

static int rule_set(struct rule *rule, const char *key, const char *value,
		    bool *has_times)
{
	u64 number = 0;
	int ret;

	if (!strcmp(key, "leaf")) {
		ret = softtdx_leaf_parse(value);
		if (ret < 0)
			return ret;
		rule->leaf = ret;
		return 0;
	}
	if (!strcmp(key, "lie")) {
		ret = match_string(lie_names, ARRAY_SIZE(lie_names), value);
		if (ret < 0)
			return ret;
		rule->lie = ret;
		return 0;
	}
	if (kstrtou64(value, 0, &number))
		return -EINVAL;
	if (!strcmp(key, "td"))
		rule->td = number;
	else if (!strcmp(key, "gpa"))
		rule->gpa = number & GPA_MASK;
	else if (!strcmp(key, "skip"))
		rule->skip = number;
	else if (!strcmp(key, "times"))
		rule->times = number;
	else if (!strcmp(key, "status"))
		rule->status = number;
	else if (!strcmp(key, "busy") && number <= 1000)
		rule->busy = number;
	else
		return -EINVAL;
	*has_times |= !strcmp(key, "times");
	return 0;
}

/* 0, -EINVAL for what is not a rule, -ENOSPC. */
int inject_add(char *line)
{
	struct rule rule = { .gpa = NO_GPA, .times = 1, .leaf = U16_MAX };
	bool has_times = false;
	char *token, *value;
	unsigned long flags;
	int ret;

	while ((token = strsep(&line, " \t\n"))) {
		if (!*token)
			continue;
		value = strchr(token, '=');
		if (!value)
			return -EINVAL;
		*value++ = '\0';
		ret = rule_set(&rule, token, value, &has_times);
		if (ret)
			return ret;
	}
	if (rule.leaf == U16_MAX || (!rule.status && !rule.lie && !rule.busy) ||
	    (rule.lie == LIE_DENIES && !rule.status))
		return -EINVAL;
	if (rule.busy) {
		rule.status = rule.status ?: ST_OPERAND_BUSY | OP_SEPT_TREE;
		if (!has_times)
			rule.times = 0;
	}

	raw_spin_lock_irqsave(&softtdx_lock, flags);
	ret = nr_rules < MAX_RULES ? 0 : -ENOSPC;
	if (!ret)
		rules[nr_rules++] = rule;
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	return ret;
}

void inject_clear(void)
{
	nr_rules = 0;
}

/* The TD and the guest page that a call is about, as far as it names them. */
static void call_subject(const struct seamcall *call, const struct td **td, u64 *gpa)
{
	struct pamt_entry *page;
	u64 pa;

	*td = NULL;
	*gpa = NO_GPA;
	switch (SEAMCALL_LEAF(call->rax)) {
	case LEAF_MEM_PAGE_ADD:
	case LEAF_MEM_SEPT_ADD:
	case LEAF_MEM_PAGE_AUG:
	case LEAF_MEM_RANGE_BLOCK:
	case LEAF_MEM_RANGE_UNBLOCK:
	case LEAF_MEM_PAGE_REMOVE:
	case LEAF_MR_EXTEND:
		*gpa = call->rcx & GPA_MASK;
		fallthrough;
	case LEAF_MNG_ADDCX:
	case LEAF_VP_CREATE:
	case LEAF_VP_ADDCX:
		pa = call->rdx;
		break;
	default:
		pa = call->rcx;
	}
	page = pamt_of(PHYS_PFN(pa & (BIT_ULL(boot_cpu_data.x86_phys_bits) - 1)));
	if (!page || SEAMCALL_LEAF(call->rax) == LEAF_MNG_CREATE)
		return;
	*td = pamt_owner(page);
	if (SEAMCALL_LEAF(call->rax) == LEAF_PHYMEM_PAGE_WBINVD ||
	    SEAMCALL_LEAF(call->rax) == LEAF_PHYMEM_PAGE_RECLAIM)
		*gpa = page->gpa;
}

static bool rule_applies(struct rule *rule, const struct td *td)
{
	u64 bit = td ? BIT_ULL(td - softtdx_tds) : 0;

	if (rule->matched++ < rule->skip)
		return false;
	if (rule->times && rule->applied >= rule->times)
		return false;
	if (rule->busy) {
		if (rule->busy_tds & bit || random_permille() >= rule->busy) {
			rule->busy_tds &= ~bit;
			return false;
		}
		rule->busy_tds |= bit;
	}
	rule->applied++;
	return true;
}

/* The lock is held. */
struct verdict inject_match(const struct seamcall *call)
{
	const struct td *td;
	u64 gpa;
	int i;

	if (!nr_rules)
		return (struct verdict) { .rule = -1 };
	call_subject(call, &td, &gpa);
	for (i = 0; i < nr_rules; i++) {
		struct rule *rule = &rules[i];

		if (rule->leaf != SEAMCALL_LEAF(call->rax) ||
		    (rule->td && (!td || td->seq != rule->td)) ||
		    (rule->gpa != NO_GPA && rule->gpa != gpa))
			continue;
		if (rule_applies(rule, td))
			return (struct verdict) { i, rule->status, rule->lie };
	}
	return (struct verdict) { .rule = -1 };
}

/*
 * What goes with an injected status: as the module does it, the S-EPT entry for
 * a status of the S-EPT class and for a busy entry (OPERAND_BUSY | RCX), else
 * zeros.
 */
void inject_details(struct seamcall *call, const struct seamcall *in, u64 status)
{
	bool details = STATUS_CLASS(status) == CLASS_SEPT ||
		       status == (ST_OPERAND_BUSY | OP_RCX);
	struct sept_entry entry;
	const struct td *td;
	u64 gpa;

	call->rcx = 0;
	call->rdx = 0;
	call_subject(in, &td, &gpa);
	if (!details || !td || gpa == NO_GPA || !td->sept_levels)
		return;
	sept_walk((struct td *)td, gpa, in->rcx & 7, &entry);
	sept_details(call, &entry);
}

void inject_show_rules(struct seq_file *m)
{
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&softtdx_lock, flags);
	for (i = 0; i < nr_rules; i++) {
		const struct rule *r = &rules[i];

		seq_printf(m, "rule %d leaf=%s", i, softtdx_leaf_name(r->leaf));
		if (r->td)
			seq_printf(m, " td=%u", r->td);
		if (r->gpa != NO_GPA)
			seq_printf(m, " gpa=%#llx", r->gpa);
		seq_printf(m, " skip=%llu times=%llu status=%#llx lie=%s busy=%u matched=%llu applied=%llu\n",
			   r->skip, r->times, r->status, lie_names[r->lie], r->busy,
			   r->matched, r->applied);
	}
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
}
