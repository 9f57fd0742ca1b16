//! The table of broadcast strategies.

use crate::options::Options;
use crate::policies;
use crate::report;
use crate::single::{show, write_report};
use kad_proto::RoutingConfig;
use kad_proto::sim::{BroadcastFigures, Broadcasts, Scenario, Scheme, Workload, World};
use serde_json::json;
use std::error::Error;
use std::time::Duration;

/// One line of the table.
pub(crate) struct Row {
    /// The network.
    pub(crate) title: String,
    pub(crate) name: &'static str,
    pub(crate) figures: BroadcastFigures,
}

/// Records of the sweep.
const RECORDS: u32 = 10_000;

/// Runs all of them, and calls this function with each as it is done.
pub(crate) fn rows(
    options: &Options,
    mut each: impl FnMut(Row) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for nodes in [1_000, 10_000] {
        let fire = Scenario { nodes, ..Scenario::under_fire() };
        let healthy = Scenario { nodes, known_round_trips: 32, ..Scenario::default() };
        for (title, scenario) in [("healthy", healthy), ("under fire", fire)] {
            let optimistic = Scheme::Optimistic { nodes: None };
            let runs = [
                ("follow-up", Scheme::FollowUp, false),
                ("follow-up, fixed 10 s", Scheme::FollowUp, true),
                ("optimistic", optimistic, false),
                ("sweep of 10,000", Scheme::Sweep { records: RECORDS }, false),
            ];
            for (name, scheme, fixed) in runs {
                let mut scenario = scenario.clone();
                scenario.broadcasts = Some(match scheme {
                    // It does not ask how large the network is.
                    Scheme::Sweep { .. } => {
                        Broadcasts { scheme, count: 1, warmup_lookups: 0, ..Broadcasts::default() }
                    }
                    _ => Broadcasts { scheme, ..Broadcasts::default() },
                });
                if fixed {
                    scenario.config = policies::fixed_time_out(10);
                    scenario.config.routing = RoutingConfig::off();
                    scenario.config.broadcast.timeout = Duration::from_secs(600);
                }
                if scheme.records() > 1 {
                    scenario.config.broadcast.timeout = Duration::from_secs(600);
                }
                let mut scenario = options.changes.apply(scenario)?;
                // Here lookups are the broadcasts' own.
                scenario.workload = Workload { lookups: 0, ..Workload::default() };
                let mut world = World::new(scenario)?;
                if options.log {
                    world.set_log(|at, event| println!("{at} {event}"));
                }
                world.run()?;
                let title = format!("{} nodes, {title}", world.scenario().nodes);
                each(Row { title, name, figures: world.broadcast_figures() })?;
            }
        }
    }
    Ok(())
}

pub(crate) fn print(options: &Options) -> Result<(), Box<dyn Error>> {
    let (mut all, mut table) = (Vec::new(), String::new());
    rows(options, |row| {
        let mut text = String::new();
        if all.last().is_none_or(|last: &Row| last.title != row.title) {
            text = format!(
                "{:24} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7}\n",
                row.title, "p50", "p90", "p99", "finds", "sends", "copies", "share", "returned", "lookups"
            );
        }
        text.push_str(&line(&row));
        if !options.json {
            show(&text)?;
        }
        table.push_str(&text);
        all.push(row);
        Ok(())
    })?;
    let notes = "\n\
         p50, p90, p99: from the start to the return. For each record: requests to find nodes, requests to store,\n\
         nodes it is sent to, and the share of the true 20 closest that live that hold it in the end, and when the\n\
         broadcast returned. lookups: all together. Each node has made 50 lookups before its first broadcast.\n\
         follow-up, fixed 10 s: one time-out, no soft limit, no second try. A sweep is one broadcast of 10 min at most.\n";
    table.push_str(notes);
    if options.json {
        let each = |row: &Row| json!({ "network": row.title, "strategy": row.name, "figures": row.figures });
        show(&format!("{:#}\n", all.iter().map(each).collect::<serde_json::Value>()))?;
    } else {
        show(notes)?;
    }
    if let Some(directory) = &options.report {
        write_report(directory, &report::strategies(&table, &all)?)?;
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let BroadcastFigures { time, finds, batches, stores, share, share_at_return, lookups, .. } = row.figures;
    let [p50, p90, p99] = [time.p50, time.p90, time.p99].map(|time| time.as_secs_f64());
    format!(
        "  {:22} {p50:6.2} s {p90:6.2} s {p99:6.2} s {finds:7.2} {batches:7.2} {stores:7.2} {share:7.4} \
         {share_at_return:8.4} {lookups:7}\n",
        row.name
    )
}
