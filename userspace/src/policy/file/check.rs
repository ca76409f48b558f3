//! From what is written to a policy that makes sense.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rustix::io::Errno;
use septwatch_common::{Status, react::QUICK_RULES};
use wildmatch::WildMatch;

use super::{
    Confidence, Limit, Policy, Rule, Select, Selector, Step,
    raw::{self, Does, Types},
    words::{At, Text, Violations},
};
use crate::policy::{
    quick,
    reaction::{Channel, Cordon, Hold, Notify, Reaction},
};

/// What is wrong, and at which byte of the file.
#[derive(Debug)]
pub struct Wrong {
    pub at: usize,
    pub what: String,
}

fn wrong<T>(at: usize, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { at, what: what.into() })
}

const COOL_DOWN: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const TD_LIMIT: Limit = Limit { count: 1, per: HOUR };
const HOST_LIMIT: Limit = Limit { count: 4, per: HOUR };
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Most rules of a policy, and most steps of a ladder: each is looked at for every violation.
const MOST_RULES: usize = 256;
const MOST_STEPS: usize = 16;
/// Most words of one list.
const MOST_WORDS: usize = 64;

type Tags = BTreeMap<String, Selector>;

pub fn policy(file: &raw::File) -> Result<Policy, Wrong> {
    let tags = tags(file)?;
    let cool_down = file.cool_down.map_or(COOL_DOWN, |time| time.0);
    let rules = file.rules.get();
    if rules.is_empty() {
        return wrong(file.rules.at(), "no rule: a policy has at least one [[rules]]");
    }
    if let Some(rule) = rules.get(MOST_RULES) {
        return wrong(rule.at(), format!("{} rules: a policy has at most {MOST_RULES}", rules.len()));
    }
    let mut names = BTreeSet::new();
    for rule in rules {
        let name = &rule.get().name;
        if !names.insert(name.get()) {
            return wrong(
                name.at(),
                format!("{:?} is the name of a rule before: each needs its own", name.get().0),
            );
        }
    }
    let policy = Policy {
        name: file.name.0.clone(),
        about: file.about.as_ref().map(|about| about.0.clone()),
        armed: file.armed,
        td_limit: file.limits.td.map_or(TD_LIMIT, limit),
        host_limit: file.limits.host.as_ref().map_or(HOST_LIMIT, |host| limit(*host.get())),
        rules: rules.iter().map(|each| rule(each.get(), &tags, cool_down)).collect::<Result<_, _>>()?,
    };
    fits_into_the_kernel(file, &policy)?;
    Ok(policy)
}

/// What must be quick is done by the kernel's programs: they follow few rules, and the host's limit is shared out among
/// them, so that they keep to it when nobody watches over them.
fn fits_into_the_kernel(file: &raw::File, policy: &Policy) -> Result<(), Wrong> {
    let places = quick::places(policy);
    let at = |place: &u32| file.rules.get().get(*place as usize).map_or(0, At::at);
    if let Some(place) = places.get(QUICK_RULES as usize) {
        let what = format!(
            "with this rule the kernel side has {} rules to follow, and can follow {QUICK_RULES}: hold and panic need one \
             for each rule, and for each status in it",
            places.len()
        );
        return wrong(at(place), what);
    }
    let (count, needed) = (policy.host_limit.count, places.len());
    if needed > count as usize {
        let what = format!(
            "at least {needed} are needed, not {count}: the kernel side follows {needed} rules (hold and panic need one for \
             each rule, and for each status in it), and shares the host's limit out among them"
        );
        let limit = file.limits.host.as_ref().map(At::at);
        return wrong(limit.or(places.last().map(at)).unwrap_or(0), what);
    }
    Ok(())
}

fn limit(per: raw::Per) -> Limit {
    Limit { count: per.count.0, per: per.per.0 }
}

fn tags(file: &raw::File) -> Result<Tags, Wrong> {
    let tag = |(name, tag): (&String, &At<raw::Tag>)| {
        let raw::Tag { name: vm, cgroup, uuid } = tag.get();
        match selector(vm.as_ref(), cgroup.as_ref(), uuid.as_ref()) {
            Some(selector) => Ok((name.clone(), selector)),
            None => wrong(tag.at(), "a tag without a selector: give it a name, cgroup or uuid"),
        }
    };
    file.tags.iter().map(tag).collect()
}

fn selector(name: Option<&Text>, cgroup: Option<&Text>, uuid: Option<&Text>) -> Option<Selector> {
    let glob = |text: &Text| WildMatch::new(&text.0);
    let uuid = uuid.map(|text| WildMatch::new_case_insensitive(&text.0));
    let selector = Selector { name: name.map(glob), cgroup: cgroup.map(glob), uuid };
    (selector != Selector::default()).then_some(selector)
}

fn select(td: &At<raw::Td>, tags: &Tags) -> Result<Select, Wrong> {
    let raw::Td { name, cgroup, uuid, tag } = td.get();
    let own = selector(name.as_ref(), cgroup.as_ref(), uuid.as_ref());
    let mut named = Vec::new();
    if let Some(words) = tag {
        for word in list(words)? {
            let name = &word.get().0;
            let Some(selector) = tags.get(name) else {
                let known = tags.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let known =
                    if known.is_empty() { "there is none".to_owned() } else { format!("there are {known}") };
                return wrong(word.at(), format!("{name:?} is no tag of [tags]; {known}"));
            };
            named.push((name.clone(), selector.clone()));
        }
    }
    if own.is_none() && named.is_empty() {
        return wrong(
            td.at(),
            "it selects nothing: give a name, cgroup, uuid or tag, or leave td out for all TDs",
        );
    }
    Ok(Select { own: own.unwrap_or_default(), tags: named })
}

/// A list that is given has something in it.
fn list<T>(words: &At<Vec<T>>) -> Result<&[T], Wrong> {
    match words.get().len() {
        0 => wrong(words.at(), "an empty list: name something, or leave the key out"),
        1..=MOST_WORDS => Ok(words.get()),
        more => wrong(words.at(), format!("{more} in one list: at most {MOST_WORDS}")),
    }
}

fn rule(rule: &raw::Rule, tags: &Tags, cool_down: Duration) -> Result<Rule, Wrong> {
    let Violations(violations) = *rule.violation.get();
    let steps = rule.step.as_ref().map(list).transpose()?.unwrap_or_default();
    let words = rule.status.as_ref().map(list).transpose()?.unwrap_or_default();
    let mut statuses = Vec::new();
    for word in words {
        let status = Status(word.get().0);
        if status.is_success() {
            return wrong(
                word.at(),
                "success, or nothing but an operand: a status that a SEAMCALL fails with is \"TDX_OPERAND_BUSY\" or \
                 \"0x8000020000000000\"",
            );
        }
        if !statuses.contains(&status) {
            statuses.push(status);
        }
    }
    let ladder = ladder(&rule.ladder)?;
    let confidence =
        rule.confidence.as_ref().map_or_else(Confidence::default, |confidence| *confidence.get());
    let acting = ladder.iter().position(|step| step.reaction.acts());
    if let (Confidence::Suspect, Some(step), Some(at)) = (confidence, acting, &rule.confidence) {
        let name = ladder[step].reaction.name();
        return wrong(
            at.at(),
            format!(
                "{name} is never done on a suspect verdict: \"certain\" or \"any\", or a ladder of log and notify"
            ),
        );
    }
    Ok(Rule {
        name: rule.name.get().0.clone(),
        violations,
        leaves: steps.iter().fold(0, |bits, step| bits | 1 << step.0 as u64),
        statuses,
        confidence,
        rate: rule.rate.as_ref().map(|rate| limit(*rate.get())),
        td: rule.td.as_ref().map(|td| select(td, tags)).transpose()?,
        cool_down: rule.cool_down.map_or(cool_down, |time| time.0),
        ladder,
    })
}

fn ladder(steps: &At<Vec<At<raw::Step>>>) -> Result<Vec<Step>, Wrong> {
    let at = steps.at();
    let steps = steps.get();
    if steps.is_empty() {
        return wrong(at, "an empty ladder: name a reaction, such as { do = \"log\" }");
    }
    if let Some(step) = steps.get(MOST_STEPS) {
        return wrong(step.at(), format!("{} steps: a ladder has at most {MOST_STEPS}", steps.len()));
    }
    let mut ladder: Vec<Step> = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        let raw = step.get();
        let if_failed = raw.if_failed.as_ref().is_some_and(|if_failed| *if_failed.get());
        if let (0, true, Some(at)) = (place, if_failed, &raw.if_failed) {
            return wrong(at.at(), "the first step of a ladder: there is none before it that could fail");
        }
        let is_hold = |step: &Step| matches!(step.reaction, Reaction::Hold(_)) && !step.if_failed;
        if *raw.does.get() == Does::Kill && !ladder.iter().any(is_hold) {
            return wrong(
                raw.does.at(),
                "kill without a hold before it in this ladder: a plain SIGKILL closes guest_memfd and frees what the TD \
                 still maps. Put { do = \"hold\" } before it; who wants that use-after-free writes \"unsafe-kill\"",
            );
        }
        ladder.push(Step { reaction: reaction(step)?, if_failed });
    }
    Ok(ladder)
}

/// An option: its name, where it is written, the reactions that have it, and their names.
type Choice = (&'static str, Option<usize>, &'static [Does], &'static str);

fn options(step: &raw::Step) -> [Choice; 6] {
    [
        ("command", step.command.as_ref().map(At::at), &[Does::Notify], "notify"),
        ("url", step.url.as_ref().map(At::at), &[Does::Notify], "notify"),
        ("timeout", step.timeout.as_ref().map(At::at), &[Does::Notify], "notify"),
        ("errno", step.errno.as_ref().map(At::at), &[Does::Hold, Does::Cordon], "hold and cordon"),
        ("ready", step.ready.as_ref().map(At::at), &[Does::Hold], "hold"),
        ("types", step.types.as_ref().map(At::at), &[Does::Cordon], "cordon"),
    ]
}

fn reaction(step: &At<raw::Step>) -> Result<Reaction, Wrong> {
    let raw = step.get();
    let does = *raw.does.get();
    let strange = |(_, at, of, _): &Choice| at.is_some() && !of.contains(&does);
    if let Some((option, Some(at), _, of)) = options(raw).into_iter().find(strange) {
        return wrong(at, format!("an option of {of}: this reaction has no {option}"));
    }
    let errno = |default| raw.errno.as_ref().map_or(default, |errno| errno.get().0);
    Ok(match does {
        Does::Log => Reaction::Log,
        Does::Notify => Reaction::Notify(notify(step)?),
        Does::Hold => Reaction::Hold(Hold {
            errno: errno(Errno::IO),
            ready: raw.ready.as_ref().is_some_and(|ready| *ready.get()),
        }),
        Does::Stop => Reaction::Stop,
        Does::Freeze => Reaction::Freeze,
        Does::Kill => Reaction::Kill,
        Does::UnsafeKill => Reaction::UnsafeKill,
        Does::Quarantine => Reaction::Quarantine,
        Does::Cordon => Reaction::Cordon(Cordon {
            errno: errno(Errno::BUSY),
            every_type: raw.types.as_ref().is_some_and(|types| *types.get() == Types::All),
        }),
        Does::Panic => Reaction::Panic,
    })
}

fn notify(step: &At<raw::Step>) -> Result<Notify, Wrong> {
    let raw = step.get();
    let timeout = raw.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.get().0);
    if let Some(at) = raw.timeout.as_ref().filter(|_| timeout > LONGEST_TIMEOUT) {
        return wrong(at.at(), "longer than 60s: others wait to be told meanwhile");
    }
    let channel = match (&raw.command, &raw.url) {
        (Some(command), None) => {
            let words = list(command)?;
            let program = &words[0];
            if !program.get().0.starts_with('/') {
                let what = format!(
                    "{:?} is no full path of a program: PATH is not searched, and there is no shell",
                    program.get().0
                );
                return wrong(program.at(), what);
            }
            Channel::Command(words.iter().map(|word| word.get().0.clone()).collect())
        }
        (None, Some(url)) => {
            let text = &url.get().0;
            let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
            if host.is_none_or(str::is_empty) || text.contains(char::is_whitespace) {
                return wrong(url.at(), format!("{text:?} is no http:// or https:// URL"));
            }
            Channel::Webhook(text.clone())
        }
        (Some(_), Some(url)) => {
            return wrong(url.at(), "both command and url: a notify has one; write two for both");
        }
        (None, None) => return wrong(step.at(), "notify without command = [...] or url = \"https://...\""),
    };
    Ok(Notify { channel, timeout })
}
