//! A real DHT: the engine `kad-proto` over UDP, speaking `BitTorrent`'s protocol.
//!
//! `cargo run --release --all-features --example mainline` starts a network of the independent crate `mainline` on
//! loopback and looks up a random key in it; `-- --help` tells what else it does: it stores, finds, maps, and stays. To learn how
//! the engine is embedded, read `driver.rs`; where its spans go, `provider.rs` and `trace.rs`.

mod agenda;
mod driver;
mod engine;
mod family;
mod goal;
mod krpc;
mod map;
mod operation;
mod options;
#[cfg(feature = "otlp")]
#[path = "../mainline-otlp/otlp.rs"]
mod otlp;
mod provider;
mod replay;
mod report;
mod saved;
mod serving;
mod stay;
mod store;
mod svg;
mod testnet;
mod trace;
mod waterfall;

use agenda::Agenda;
use driver::{Driver, Settings};
use goal::Goal;
use kad_proto::coordinator::Inbound;
use kad_proto::{Key160, Stamped};
use options::{HELP, Options, Stay};
use provider::Providers;
use report::{Report, Totals, joined};
use serde_json::json;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};
use testnet::Testnet;
use trace::Kept;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => return exit(io::stdout().write_all(HELP.as_bytes()).is_err().into()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}\nTry --help.");
            return exit(1);
        }
    };
    let done = match &options.replay {
        Some(path) => replay::replay(path, &options),
        None => run(&options),
    };
    done.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error}");
        if options.json {
            let _ =
                writeln!(io::stdout(), "{}", serde_json::json!({ "error": error.to_string(), "exit": 1 }));
        }
        exit(1)
    })
}

fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let say = |text: String| -> io::Result<()> {
        if options.json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") }
    };
    let (id, known) = match &options.load {
        Some(path) => saved::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => (Key160::new(rand::random()), Vec::new()),
    };
    let (testnet, bootstrap) = if options.bootstrap.is_empty() && options.load.is_none() {
        let nodes = options.nodes.unwrap_or(30);
        say(format!("starting {nodes} nodes of the crate `mainline` on loopback"))?;
        let testnet = Testnet::start(nodes)?;
        let bootstrap = testnet.bootstrap();
        (Some(testnet), bootstrap)
    } else {
        (None, options.bootstrap.clone())
    };

    // Nobody else needs to reach a node whose network is on loopback.
    let mut others = bootstrap.iter().copied().chain(known.iter().map(|saved| saved.node.1));
    let all_loopback = others.all(|address| address.ip().is_loopback());
    let ip = if all_loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let stays = options.stay != Stay::No;
    let config = engine::config(options.deadline);
    let kept = Kept::new(options.trace_upkeep);
    let providers = Providers::new(&kept, options.otlp.as_deref())?;
    let mut driver = Driver::new(
        SocketAddrV4::new(ip, options.port),
        id,
        if stays { engine::staying(config, options.probe) } else { config },
        Settings { drop: options.drop, serve: stays, record: options.record.is_some() },
        providers.tracer(),
        providers.metrics(),
    )?;
    let does = if stays { "serving" } else { "listening" };
    say(format!("{does} on {} as node {}", driver.address(), driver.local()))?;

    let is_alone = known.is_empty();
    driver.tell(Stamped::new(Inbound::Restore(known)));
    let done = work(&mut driver, options, (&bootstrap, is_alone), testnet.as_ref(), &kept, &say);
    // Above all where something went wrong.
    if let (Some(path), Some(recording)) = (&options.record, driver.recording()) {
        write_file(path, &recording)?;
    }
    driver.abandon();
    driver.measure();
    if let (Some(collector), Err(error)) = (&options.otlp, providers.flush()) {
        return Err(format!("--otlp {collector}: {error}").into());
    }
    done
}

/// Does what the options say, from the first contact on, and reports it. Says the exit code.
fn work(
    driver: &mut Driver,
    options: &Options,
    (bootstrap, is_alone): (&[SocketAddrV4], bool),
    testnet: Option<&Testnet>,
    kept: &Kept,
    say: &dyn Fn(String) -> io::Result<()>,
) -> Result<ExitCode, Box<dyn Error>> {
    let silent = driver.bootstrap(bootstrap)?;
    if is_alone && silent.len() == bootstrap.len() {
        return Err(format!("no bootstrap node answered: {}", list(&silent)).into());
    }
    if !silent.is_empty() {
        say(format!("no answer from bootstrap nodes: {}", list(&silent)))?;
    }

    let mut code = 0;
    let mut agenda = Agenda::new(options);
    if options.stay == Stay::No {
        while agenda.go_on(driver) {
            driver.run()?;
        }
    } else {
        code = stay::stay(driver, &mut agenda, options, testnet, kept)?;
    }
    if let Some(path) = &options.save {
        saved::write(path, driver.local(), &driver.snapshot())
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    driver.abandon();
    let ended = driver.take_ended(true).into_iter();
    let reports: Vec<_> = ended.map(|operation| Report::new(operation, kept, driver, testnet)).collect();
    code = reports.iter().map(Report::exit_code).fold(code, u8::max);
    for report in &reports {
        report.draw()?;
    }
    if let Some(path) = &options.svg {
        let spans: Vec<_> = reports.iter().map(|report| report.spans.as_slice()).collect();
        write_file(path, svg::svg(&spans)?.as_bytes())?;
    }
    if options.json {
        let (lookups, actions): (Vec<_>, Vec<_>) =
            reports.iter().partition(|report| report.operation.goal == Goal::Find);
        let json = json!({
            "event": "report",
            "nodes": testnet.map(Testnet::len),
            "lookups": lookups.into_iter().map(Report::json).collect::<Vec<_>>(),
            "actions": actions.into_iter().map(Report::json).collect::<Vec<_>>(),
            "exit": code,
        });
        writeln!(io::stdout(), "{}", joined(Totals(driver).json(), json))?;
    } else {
        for report in &reports {
            write!(io::stdout(), "{report}")?;
        }
        write!(io::stdout(), "{}", Totals(driver))?;
    }
    Ok(exit(code))
}

/// Writes a file; an error names it.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn list(addresses: &[SocketAddrV4]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
