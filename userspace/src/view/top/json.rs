//! A view's data as JSON, for scripts: what its table holds under the names of its columns, and what it says beside.

use septwatch_common::State;
use serde_json::{Map, Value as Json, json};

use super::{
    columns::{Column, HOOKS, LEAVES, LOG, TDS, Value},
    scene::{Found, KINDS, Scene, Source, TdDetail},
    ui::View,
};
use crate::{model::verdict::Verdict, source::event::Event, view};

/// What a view shows. `rows`: which rows of its table, in which order.
pub fn view(view: View, scene: &Scene, rows: &[usize]) -> Json {
    let mut object = head(view, scene);
    let fields = match view {
        View::Overview => overview(scene),
        View::Tds => {
            let mut fields = Map::from_iter([("tds".to_owned(), table(TDS, &scene.tds, rows, scene))]);
            if let Some(td) = &scene.td {
                fields.insert("open".to_owned(), detail(td));
            }
            fields
        }
        View::Violations => {
            let found = rows.iter().filter_map(|row| scene.violations.get(*row));
            let found: Vec<_> = found.map(|found| violation(found)).collect();
            Map::from_iter([("violations".to_owned(), found.into())])
        }
        View::Seamcalls => {
            let leaves = rows.iter().filter_map(|row| scene.leaves.get(*row)).map(|row| {
                let mut cells = cells(LEAVES, row, scene);
                let status = |(status, count): &(septwatch_common::Status, u64)| {
                    json!({"status": format!("{:#x}", status.0), "name": status.name(), "count": count})
                };
                cells.insert("statuses".to_owned(), row.statuses.iter().map(status).collect());
                Json::from(cells)
            });
            Map::from_iter([("seamcalls".to_owned(), leaves.collect())])
        }
        View::Policy => policy(scene, rows),
        View::Log => {
            let lines = rows.iter().filter_map(|row| scene.log.get(*row)).map(|line| {
                let mut cells = cells(LOG, line.as_ref(), scene);
                cells.insert("time_ns".to_owned(), line.time_ns.into());
                Json::from(cells)
            });
            Map::from_iter([("log".to_owned(), lines.collect())])
        }
    };
    object.extend(fields);
    object.into()
}

fn head(view: View, scene: &Scene) -> Map<String, Json> {
    let (kind, name) = match &scene.about.source {
        Source::Live => ("live", scene.about.hostname.as_str()),
        Source::Demo(name) => ("demo", name.as_str()),
        Source::Recording(name) => ("recording", name.as_str()),
    };
    let clock = scene.time.clock;
    let since = i128::from(scene.time.now_ns) - i128::from(clock.monotonic_ns);
    let realtime = u64::try_from(i128::from(clock.realtime_ns) + since).unwrap_or(0);
    Map::from_iter([
        ("type".to_owned(), json!("top")),
        ("view".to_owned(), json!(view.name())),
        ("source".to_owned(), json!(kind)),
        ("name".to_owned(), json!(name)),
        ("kernel".to_owned(), json!(scene.about.kernel)),
        ("time_ns".to_owned(), json!(scene.time.now_ns)),
        ("realtime_ns".to_owned(), json!(realtime)),
    ])
}

fn overview(scene: &Scene) -> Map<String, Json> {
    let host = &scene.host;
    let total = scene.total();
    let lent = KINDS.map(|kind| (kind.name().to_owned(), json!(host.lent[kind as usize])));
    let rates = host.rates;
    let by_kind = scene.by_kind.iter().map(|(violation, count)| (violation.name().to_owned(), json!(count)));
    let overhead = host.overhead.as_ref().map(|overhead| {
        let (counted, why) = match &overhead.counters {
            Some(Ok((cycles, instructions))) => (Some((*cycles, *instructions)), None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        json!({
            "agent_cpu_thousandths": overhead.agent,
            "programs_cpu_thousandths": overhead.programs,
            "program_runs_per_second": overhead.runs,
            "rss_bytes": overhead.rss,
            "cycles_per_second": counted.map(|(cycles, _)| cycles),
            "instructions_per_second": counted.map(|(_, instructions)| instructions),
            "counters": why,
        })
    });
    let last = scene.violations.iter().rev().take(10).map(|found| violation(found));
    Map::from_iter([
        ("verdict".to_owned(), json!(host.verdict(total))),
        ("degraded".to_owned(), json!(host.degraded)),
        ("violations".to_owned(), json!(total)),
        ("suspect".to_owned(), json!(host.suspect)),
        ("by_kind".to_owned(), by_kind.collect::<Map<_, _>>().into()),
        ("tds".to_owned(), json!(host.tds)),
        ("tds_seen".to_owned(), json!(host.tds_seen)),
        ("lent_frames".to_owned(), lent.into_iter().collect::<Map<_, _>>().into()),
        (
            "per_second".to_owned(),
            json!({
                "calls": rates.calls, "maps": rates.maps, "zaps": rates.zaps, "busy": rates.busy,
                "errors": rates.errors, "records": rates.records,
            }),
        ),
        ("latency".to_owned(), json!(host.latency)),
        ("vital_records".to_owned(), json!(host.vital)),
        ("page_records".to_owned(), json!(host.pages)),
        ("frames_outside_the_ledger".to_owned(), json!(host.outside)),
        ("calls_not_read".to_owned(), json!(host.unread)),
        ("releases_missed".to_owned(), json!(host.missed_releases)),
        ("overhead".to_owned(), json!(overhead)),
        ("last_violations".to_owned(), last.collect()),
    ])
}

fn violation(found: &Found) -> Json {
    let mut object = view::json::violation(&found.verdict, &found.places);
    object["number"] = found.number.into();
    object["td_name"] = json!(found.td_name.as_deref());
    object["life"] = found.story.iter().map(told).collect();
    object["life_is_cut"] = found.story_is_cut.into();
    object["reactions"] = json!(found.steps);
    object
}

fn told(event: &Event) -> Json {
    let verdict = match event {
        Event::Violation(violation) => Verdict::of(violation),
        _ => None,
    };
    view::json::event(event, verdict.as_ref())
}

fn detail(td: &TdDetail) -> Json {
    let states = td.states.iter().map(|at| {
        json!({
            "time_ns": at.time_ns,
            State::Mapped.name(): at.mapped,
            State::Blocked.name(): at.blocked,
            State::Removed.name(): at.removed,
            State::Owned.name(): at.owned,
            "violated": at.violated,
        })
    });
    json!({
        "td": td.id,
        "memory": states.collect::<Vec<_>>(),
        "added_frames": td.added,
        "to_private_frames": td.to_private,
        "to_shared_frames": td.to_shared,
        "key_freed_ns": td.key_freed_ns,
        "destroyed_ns": td.destroyed_ns,
        "vcpus_out_ns": td.vcpus_out_ns,
    })
}

fn policy(scene: &Scene, rows: &[usize]) -> Map<String, Json> {
    let followed = scene.policy.as_ref().map(|policy| {
        json!({
            "name": policy.name,
            "armed": policy.armed,
            "may_be_armed": policy.may_be_armed,
            "rules": policy.rules,
            "gaps": policy.gaps,
            "limit_left_on_host": policy.limit_left,
            "kernel_rules": policy.kernel_rules,
            "holds": policy.holds,
            "audit_folder": policy.folder,
            "audit": policy.audit,
        })
    });
    Map::from_iter([
        ("hooks".to_owned(), table(HOOKS, &scene.hooks, rows, scene)),
        ("policy".to_owned(), json!(followed)),
    ])
}

fn table<R>(columns: &[Column<R>], all: &[R], rows: &[usize], scene: &Scene) -> Json {
    let rows = rows.iter().filter_map(|row| all.get(*row));
    rows.map(|row| Json::from(cells(columns, row, scene))).collect()
}

fn cells<R>(columns: &[Column<R>], row: &R, scene: &Scene) -> Map<String, Json> {
    let cell = |column: &Column<R>| (column.key.to_owned(), value(&(column.get)(row, scene)));
    columns.iter().map(cell).collect()
}

fn value(value: &Value<'_>) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Number(number) | Value::Span(number) => (*number).into(),
        Value::Rate(rate) => (*rate).into(),
        Value::Frames(frames) => frames.saturating_mul(4096).into(),
        Value::Hex(number) => format!("{number:#x}").into(),
        Value::Text(text) => text.as_ref().into(),
    }
}
