//! A real DHT: the engine `kad-proto` over UDP, speaking `BitTorrent`'s protocol.
//!
//! `cargo run --release --example mainline` starts a network of the independent crate `mainline` on loopback and looks
//! up a random key in it; `-- --help` tells what else it does: it stores, finds, maps, and stays. To learn how the engine is embedded, read `driver.rs`.

mod agenda;
mod driver;
mod goal;
mod krpc;
mod map;
mod options;
mod report;
mod saved;
mod stay;
mod store;
mod testnet;
mod trace;

use agenda::Agenda;
use driver::{Driver, Settings};
use goal::Goal;
use kad_proto::coordinator::Inbound;
use kad_proto::{Key160, Stamped};
use options::{HELP, Options, Stay};
use report::{Report, Totals, joined};
use serde_json::json;
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use testnet::Testnet;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => return exit(io::stdout().write_all(HELP.as_bytes()).is_err().into()),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}\nTry --help.");
            return exit(1);
        }
    };
    run(&options).unwrap_or_else(|error| {
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
    let config = driver::config(options.deadline);
    let mut driver = Driver::new(
        SocketAddrV4::new(ip, options.port),
        id,
        if stays { driver::staying(config, options.probe) } else { config },
        Settings { drop: options.drop, serve: stays, trace_upkeep: options.trace_upkeep },
    )?;
    let does = if stays { "serving" } else { "listening" };
    say(format!("{does} on {} as node {}", driver.address(), driver.local()))?;

    let is_alone = known.is_empty();
    driver.tell(Stamped::new(Inbound::Restore(known)));
    let silent = driver.bootstrap(&bootstrap)?;
    if is_alone && silent.len() == bootstrap.len() {
        return Err(format!("no bootstrap node answered: {}", list(&silent)).into());
    }
    if !silent.is_empty() {
        say(format!("no answer from bootstrap nodes: {}", list(&silent)))?;
    }

    let mut code = 0;
    let mut agenda = Agenda::new(options);
    if stays {
        code = stay::stay(&mut driver, &mut agenda, options, testnet.as_ref())?;
    } else {
        while agenda.go_on(&mut driver) {
            driver.run()?;
        }
    }
    if let Some(path) = &options.save {
        saved::write(path, driver.local(), &driver.snapshot())
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let operations = driver.take_ended(true);
    let (local, testnet) = (driver.local(), testnet.as_ref());
    let reports: Vec<_> = operations.iter().map(|operation| Report { operation, local, testnet }).collect();
    code = reports.iter().map(Report::exit_code).fold(code, u8::max);
    for report in &reports {
        report.draw()?;
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
        writeln!(io::stdout(), "{}", joined(Totals(&driver).json(), json))?;
    } else {
        for report in &reports {
            write!(io::stdout(), "{report}")?;
        }
        write!(io::stdout(), "{}", Totals(&driver))?;
    }
    Ok(exit(code))
}

fn list(addresses: &[SocketAddrV4]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
