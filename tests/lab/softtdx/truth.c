// SPDX-License-Identifier: GPL-2.0
/*
 * The lab's own truth, which no tool under test has a part in: every SEAMCALL,
 * who owns which frame now, and every frame that the kernel's allocator took
 * back or handed out while a TD owned it (from mm's tracepoints). Frames can be
 * watched besides: whether the allocator takes them back at all.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>
#include <trace/events/kmem.h>

#include "softtdx.h"

#define CALLS	65536
#define FRAMES	131072

struct call_record {
	u64 ns;
	u64 rax, rcx, rdx, r8;
	u64 status, out_rcx, out_rdx;
	pid_t pid;
	u16 cpu;
	s8 rule;
	u8 lie;
};

struct frame_record {
	u64 ns;
	u64 call;		/* SEAMCALLs before this */
	unsigned long pfn;
	u64 gpa;
	u32 td;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	enum { FRAME_FREED, FRAME_UNFLUSHED, FRAME_REUSED } what;
	u8 pt, level, state;
};

static struct call_record *calls;
static struct frame_record *frames;

/* Found by its first bytes in the memory that a crash kernel is left with. */
static struct {
	char magic[16];
	u64 calls;
	u64 failed, failed_ns;	/* those that failed, and when the last did */
	u64 frames, frame_ns;
} nr = { .magic = "softtdx-truth" };

static DEFINE_RAW_SPINLOCK(frames_lock);

/*
 * One bit per frame: it is watched, for it held a page of this TD's guest; it
 * came back to the allocator since.
 */
static unsigned long *watched, *back;
static u32 watched_td;

static const char *const frame_names[] = {
	[FRAME_FREED] = "freed-while-owned",
	[FRAME_UNFLUSHED] = "freed-unflushed",
	[FRAME_REUSED] = "reused-while-owned",
};

/* The lock is held. */
void truth_record(const struct seamcall *in, const struct seamcall *out,
		  u64 status, const struct verdict *v)
{
	struct call_record *record = &calls[nr.calls++ % CALLS];

	*record = (struct call_record) {
		.ns = ktime_get_mono_fast_ns(),
		.rax = in->rax,
		.rcx = in->rcx,
		.rdx = in->rdx,
		.r8 = in->r8,
		.status = status,
		.out_rcx = out->rcx,
		.out_rdx = out->rdx,
		.pid = current->pid,
		.cpu = raw_smp_processor_id(),
		.rule = v->rule,
		.lie = v->lie,
	};
	/* TDH.VP.ENTER returns the exit's reason in RAX, not a status. */
	if (SEAMCALL_LEAF(in->rax) != LEAF_VP_ENTER && status) {
		nr.failed++;
		nr.failed_ns = record->ns;
	}
}

/* Reads the PAMT without the lock: the allocator may run inside a SEAMCALL. */
static void frame_seen(unsigned long pfn, bool freed)
{
	struct pamt_entry *page = pamt_of(pfn);
	struct frame_record *record;
	unsigned long flags;
	u8 pt;

	if (!page)
		return;
	/* Pairs with pamt_give(): the rest of the line is there with the type. */
	pt = smp_load_acquire(&page->pt);
	if (pt == PAMT_NDA && !(page->unflushed && freed))
		return;
	raw_spin_lock_irqsave(&frames_lock, flags);
	record = &frames[nr.frames++ % FRAMES];
	*record = (struct frame_record) {
		.ns = ktime_get_mono_fast_ns(),
		.call = READ_ONCE(nr.calls),
		.pfn = pfn,
		.gpa = page->gpa,
		.td = pamt_owner(page)->seq,
		.pid = current->pid,
		.what = !freed ? FRAME_REUSED :
			pt == PAMT_NDA ? FRAME_UNFLUSHED : FRAME_FREED,
		.pt = pt,
		.level = page->level,
		.state = pt == PAMT_NDA ? SEPT_FREE : sept_state_of(page),
	};
	strscpy(record->comm, current->comm, sizeof(record->comm));
	nr.frame_ns = record->ns;
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	page->unflushed = false;
}

static void probe_page_free(void *data, struct page *page, unsigned int order)
{
	unsigned long i;

	for (i = 0; i < 1UL << order; i++) {
		unsigned long pfn = page_to_pfn(page) + i;

		if (pfn < pamt_nr_pages() && test_bit(pfn, watched))
			set_bit(pfn, back);
		frame_seen(pfn, true);
	}
}

static void probe_page_alloc(void *data, struct page *page, unsigned int order,
			     gfp_t gfp_flags, int migratetype)
{
	unsigned long i;

	for (i = 0; page && i < 1UL << order; i++)
		frame_seen(page_to_pfn(page) + i, false);
}

static size_t watch_bytes(void)
{
	return BITS_TO_LONGS(pamt_nr_pages()) * sizeof(long);
}

int __init truth_init(void)
{
	calls = vzalloc(array_size(CALLS, sizeof(*calls)));
	frames = vzalloc(array_size(FRAMES, sizeof(*frames)));
	watched = vzalloc(watch_bytes());
	back = vzalloc(watch_bytes());
	if (!calls || !frames || !watched || !back)
		return -ENOMEM;
	return register_trace_mm_page_free(probe_page_free, NULL) ?:
	       register_trace_mm_page_alloc(probe_page_alloc, NULL);
}

void truth_reset(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&softtdx_lock, flags);
	nr.calls = 0;
	nr.failed = 0;
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	raw_spin_lock_irqsave(&frames_lock, flags);
	nr.frames = 0;
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	truth_watch(0);
}

/* Watches the frames of this TD's guest, of now and later, and no others; 0: none. */
void truth_watch(u32 td)
{
	unsigned long pfn, flags;

	raw_spin_lock_irqsave(&softtdx_lock, flags);
	watched_td = td;
	memset(watched, 0, watch_bytes());
	memset(back, 0, watch_bytes());
	for (pfn = 0; td && pfn < pamt_nr_pages(); pfn++) {
		struct pamt_entry *page = pamt_of(pfn);

		if (page->pt == PAMT_REG && pamt_owner(page)->seq == td)
			set_bit(pfn, watched);
	}
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
}

/* The lock is held. */
void truth_given(unsigned long pfn, const struct td *td)
{
	if (watched_td && td->seq == watched_td)
		set_bit(pfn, watched);
}

static const char *const lie_marks[] = {
	[LIE_NONE] = "",
	[LIE_NOTHING] = " lie=nothing",
	[LIE_ELSEWHERE] = " lie=elsewhere",
	[LIE_DENIES] = " lie=denies",
};

/* Oldest first; a record may be overwritten while it is shown. */
void truth_show_calls(struct seq_file *m)
{
	u64 end = READ_ONCE(nr.calls), i = end > CALLS ? end - CALLS : 0;

	if (i)
		seq_printf(m, "# %llu earlier calls are gone\n", i);
	for (; i < end; i++) {
		const struct call_record *r = &calls[i % CALLS];

		seq_printf(m, "%llu ns=%llu cpu=%u pid=%d %s rcx=%#llx rdx=%#llx r8=%#llx -> %#018llx rcx=%#llx rdx=%#llx",
			   i, r->ns, r->cpu, r->pid,
			   softtdx_leaf_name(SEAMCALL_LEAF(r->rax)), r->rcx, r->rdx,
			   r->r8, r->status, r->out_rcx, r->out_rdx);
		if (r->rule >= 0)
			seq_printf(m, " rule=%d%s", r->rule, lie_marks[r->lie]);
		seq_putc(m, '\n');
	}
}

void truth_show_frames(struct seq_file *m)
{
	u64 end = READ_ONCE(nr.frames), i = end > FRAMES ? end - FRAMES : 0;

	if (i)
		seq_printf(m, "# %llu earlier frames are gone\n", i);
	for (; i < end; i++) {
		const struct frame_record *r = &frames[i % FRAMES];

		seq_printf(m, "%s ns=%llu call=%llu pfn=%#lx type=%s td=%u gpa=%#llx level=%u state=%s pid=%d comm=%s\n",
			   frame_names[r->what], r->ns, r->call, r->pfn,
			   pamt_type_name(r->pt), r->td, r->gpa, r->level,
			   sept_state_name(r->state), r->pid, r->comm);
	}
}

/* Which came back is told of a few only. */
void truth_show_watch(struct seq_file *m)
{
	unsigned long pfn, told = 0;

	seq_printf(m, "watched=%u back=%u", bitmap_weight(watched, pamt_nr_pages()),
		   bitmap_weight(back, pamt_nr_pages()));
	for_each_set_bit(pfn, back, pamt_nr_pages()) {
		if (told++ == 8)
			break;
		seq_printf(m, " pfn=%#lx", pfn);
	}
	seq_putc(m, '\n');
}

void truth_show_owned(struct seq_file *m)
{
	unsigned long pfn, flags;

	for (pfn = 0; pfn < pamt_nr_pages(); pfn++) {
		struct pamt_entry *page = pamt_of(pfn);

		if (READ_ONCE(page->pt) == PAMT_NDA)
			continue;
		raw_spin_lock_irqsave(&softtdx_lock, flags);
		if (page->pt != PAMT_NDA)
			seq_printf(m, "pfn=%#lx type=%s td=%u tdr=%#llx gpa=%#llx level=%u state=%s\n",
				   pfn, pamt_type_name(page->pt),
				   pamt_owner(page)->seq, pamt_owner(page)->tdr,
				   page->gpa, page->level,
				   sept_state_name(sept_state_of(page)));
		raw_spin_unlock_irqrestore(&softtdx_lock, flags);
	}
}

void truth_show_state(struct seq_file *m)
{
	static const char *const life[] = { "HKID_ASSIGNED", "KEYS_CONFIGURED",
					    "BLOCKED", "TEARDOWN" };
	static const char *const op[] = { "UNINITIALIZED", "INITIALIZED", "RUNNABLE" };
	unsigned long pfn, owned = 0, flags;
	int i;

	for (pfn = 0; pfn < pamt_nr_pages(); pfn++)
		owned += READ_ONCE(pamt_of(pfn)->pt) != PAMT_NDA;
	raw_spin_lock_irqsave(&softtdx_lock, flags);
	seq_printf(m, "calls=%llu failed=%llu owned=%lu frames=%llu\n",
		   nr.calls, nr.failed, owned, nr.frames);
	for (i = 0; i < SOFTTDX_MAX_TDS; i++) {
		const struct td *td = &softtdx_tds[i];

		if (td->used)
			seq_printf(m, "td=%u tgid=%d tdr=%#llx hkid=%u life=%s op=%s children=%lld vcpus=%u associated=%u epoch=%llu\n",
				   td->seq, td->tgid, td->tdr, td->hkid,
				   life[td->lifecycle], op[td->op_state], td->chldcnt,
				   td->num_vcpus, td->num_assoc_vcpus, td->epoch);
	}
	raw_spin_unlock_irqrestore(&softtdx_lock, flags);
}
