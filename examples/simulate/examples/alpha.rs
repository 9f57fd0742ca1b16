//! What does alpha do to the time of a lookup, at 10,000 nodes with measured latencies under churn?
//!
//! `cargo run --release -p kad-simulate --example alpha`

use kad_proto::sim::{Churn, Interarrival, Latency, LatencyMatrix, Link, Scenario, Workload};
use kad_simulate::runner::{self, Interval, Sweep};
use std::{env, error::Error, sync::Arc, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let short = env::args().any(|argument| argument == "--short");
    let matrix = LatencyMatrix::parse(include_str!("ten-cities.txt"))?;
    let pace = Interarrival::Mean(Duration::from_secs(20));
    let base = Scenario {
        nodes: if short { 500 } else { 10_000 },
        link: Link { round_trip: Latency::Matrix(Arc::new(matrix)), loss: 0.02, ..Link::default() },
        churn: Some(Churn::ipfs()),
        workload: Workload { lookups: if short { 20 } else { 400 }, pace, ..Workload::default() },
        ..Scenario::default()
    };
    let seeds = if short { 1..=2 } else { 1..=10 }.collect::<Vec<_>>();
    let variants = runner::combinations(&base, &[Sweep::parse("engine.alpha=1,3,5,10")?])?;
    let runs = runner::run(runner::with_seeds(&variants, &seeds), runner::cores());
    println!(
        "alpha: median time of a lookup, s; 99 %, s; requests; recall (mean over the seeds, and 95 % interval)"
    );
    for of_one_alpha in runs.chunks(seeds.len()) {
        let done = of_one_alpha.iter().filter_map(|it| it.run.as_ref().ok()).map(|run| &run.figures);
        let figures = done.collect::<Vec<_>>();
        let over = |figure: fn(&kad_proto::sim::Figures) -> f64| {
            Interval::of(&figures.iter().map(|it| figure(it)).collect::<Vec<_>>()).to_string()
        };
        let p50 = over(|it| it.time.p50.as_secs_f64());
        let p99 = over(|it| it.time.p99.as_secs_f64());
        let (requests, recall) = (over(|it| it.mean_requests), over(|it| it.recall));
        let alpha = of_one_alpha.first().and_then(|it| it.labels.first()).map(|(_, value)| value.as_str());
        println!("{}: {p50}; {p99}; {requests}; {recall}", alpha.unwrap_or_default());
    }
    Ok(())
}
