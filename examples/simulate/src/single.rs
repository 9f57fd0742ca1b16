//! One scenario, run with everything that can be said of it.

use crate::options::Options;
use crate::report;
use kad_proto::sim::{BroadcastFigures, Figures, Health, Scenario, Violation, World};
use serde::Serialize;
use std::error::Error;
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a run went in real time.
pub(crate) struct Speed {
    pub(crate) build: Duration,
    pub(crate) run: Duration,
    /// Ctrl-C ended it.
    pub(crate) interrupted: bool,
}

pub(crate) fn run(name: &str, mut scenario: Scenario, options: &Options) -> Result<(), Box<dyn Error>> {
    scenario.replay += " --record '#{node}=flight'";
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130); // asked twice: at once
        }
    })?;
    let began = Instant::now();
    let lookups = scenario.workload.lookups;
    let mut world = World::new(scenario)?;
    let build = began.elapsed();
    for chosen in &options.record {
        chosen.begin(&mut world)?;
    }
    if options.log {
        world.set_log(|at, event| println!("{at} {event}"));
    }
    let ran = drive(&mut world, lookups, &interrupted);
    // What was recorded up to a broken invariant shows what broke it.
    let written: Vec<_> = options.record.iter().map(|chosen| chosen.write(&world)).collect();
    if ran.is_err() {
        written.iter().filter_map(|written| written.as_ref().err()).for_each(|error| eprintln!("{error}"));
    }
    let speed = Speed { build, run: ran?, interrupted: interrupted.load(Ordering::Relaxed) };
    if options.json {
        show(&format!("{}\n", as_json(name, &world, &speed)?))?;
    } else {
        show(&text(name, &world, &speed)?)?;
    }
    if let Some(directory) = &options.report {
        write_report(directory, &report::page(name, &world, &speed)?)?;
    }
    Ok(written.into_iter().collect::<Result<(), _>>()?)
}

/// Runs to the end, or until it is interrupted. Says how long that took.
fn drive(world: &mut World, lookups: u32, interrupted: &AtomicBool) -> Result<Duration, Box<Violation>> {
    let began = Instant::now();
    let is_terminal = stderr().is_terminal();
    let mut shown_at = began;
    while world.is_busy() && !interrupted.load(Ordering::Relaxed) {
        for _ in 0..1_000 {
            if world.is_busy() {
                world.step()?;
            }
        }
        if is_terminal && shown_at.elapsed() > Duration::from_millis(100) {
            shown_at = Instant::now();
            progress(world, lookups, began.elapsed());
        }
    }
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    let ran = began.elapsed();
    if !interrupted.load(Ordering::Relaxed) {
        world.run()?; // judges that nothing is left
    }
    Ok(ran)
}

/// Writes a report into a directory.
pub(crate) fn write_report(directory: &Path, page: &str) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let path = directory.join("report.html");
    std::fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn progress(world: &World, lookups: u32, ran: Duration) {
    let done = f64::from(world.begun()) / f64::from(lookups.max(1));
    let bar: String = (0..30).map(|cell| if f64::from(cell) < done * 30.0 { '█' } else { '·' }).collect();
    let virtual_time = (world.now() - kad_proto::Instant::ORIGIN).as_secs_f64();
    let speed = world.events() as f64 / ran.as_secs_f64() / 1e6;
    eprint!(
        "\r\x1b[K{bar} {}/{lookups} lookups, virtual {virtual_time:.1} s, {speed:.2} M events/s",
        world.begun()
    );
    let _ = stderr().flush(); // a progress line that cannot be shown is no harm
}

/// Writes to the standard output; a reader that has gone away has seen enough.
pub(crate) fn show(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn text(name: &str, world: &World, speed: &Speed) -> Result<String, std::fmt::Error> {
    use std::fmt::Write;
    let mut out = String::new();
    let scenario = world.scenario();
    writeln!(out, "scenario   {name}, {} nodes, seed {}", scenario.nodes, scenario.seed)?;
    if speed.interrupted {
        writeln!(out, "interrupted: the figures so far")?;
    }
    if scenario.workload.lookups > 0 || scenario.broadcasts.is_none() {
        writeln!(out, "{}", world.figures())?;
    }
    if scenario.broadcasts.is_some() {
        writeln!(out, "{}", world.broadcast_figures())?;
    }
    if !world.health().is_empty() {
        writeln!(out, "tables           time      up   size    dead  missing  recall  complete  upkeep/min")?;
        let all = world.health();
        for health in all.iter().step_by(all.len().div_ceil(12).max(1)) {
            let at = (health.at - kad_proto::Instant::ORIGIN).as_secs_f64();
            let Health { up, size, dead, missing, recall, complete, upkeep, .. } = health;
            let (dead, complete, upkeep) = (dead * 100.0, complete * 100.0, upkeep.sum());
            write!(out, "         {at:10.0} s {up:>7} {size:>6.1} {dead:>6.1}% {missing:>8.1}")?;
            writeln!(out, " {recall:>7.4} {complete:>8.1}% {upkeep:>11.1}")?;
        }
    }
    let virtual_time = (world.now() - kad_proto::Instant::ORIGIN).as_secs_f64();
    let (build, run) = (speed.build.as_secs_f64(), speed.run.as_secs_f64());
    let events = world.events();
    let rate = events as f64 / run.max(1e-9) / 1e6;
    writeln!(out, "virtual    {virtual_time:.1} s")?;
    writeln!(out, "build      {build:.2} s, run {run:.2} s, {events} events, {rate:.2} M events/s")?;
    if let Some(bytes) = resident() {
        writeln!(
            out,
            "memory     {:.0} MB resident, {} bytes per node",
            bytes as f64 / 1e6,
            bytes / u64::from(scenario.nodes)
        )?;
    }
    writeln!(out, "fingerprint {:016x}", world.fingerprint())?;
    Ok(out)
}

/// Bytes resident now, where the platform tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

/// The JSON of a run: the scenario, its figures, and how the run went in real time.
#[derive(Serialize)]
struct Report<'a> {
    scenario: &'a str,
    nodes: u32,
    seed: u64,
    interrupted: bool,
    #[serde(flatten)]
    figures: Figures,
    broadcasts: Option<BroadcastFigures>,
    health: &'a [Health],
    virtual_s: f64,
    events: u64,
    events_per_s: f64,
    build_s: f64,
    run_s: f64,
    resident_bytes: Option<u64>,
    fingerprint: String,
}

fn as_json(name: &str, world: &World, speed: &Speed) -> Result<String, serde_json::Error> {
    let report = Report {
        scenario: name,
        nodes: world.scenario().nodes,
        seed: world.scenario().seed,
        interrupted: speed.interrupted,
        figures: world.figures(),
        broadcasts: world.scenario().broadcasts.as_ref().map(|_| world.broadcast_figures()),
        health: world.health(),
        virtual_s: (world.now() - kad_proto::Instant::ORIGIN).as_secs_f64(),
        events: world.events(),
        events_per_s: world.events() as f64 / speed.run.as_secs_f64().max(1e-9),
        build_s: speed.build.as_secs_f64(),
        run_s: speed.run.as_secs_f64(),
        resident_bytes: resident(),
        fingerprint: format!("{:016x}", world.fingerprint()),
    };
    serde_json::to_string_pretty(&report)
}
