//! A lookup in a real DHT: the engine `kad-proto` over UDP, speaking `BitTorrent`'s protocol.
//!
//! `cargo run --release --example mainline` starts a network of the independent crate `mainline` on loopback and looks
//! up a random key in it; `-- --help` tells what else it does. To learn how the engine is embedded, read `driver.rs`.

mod driver;
mod krpc;
mod options;
mod report;
mod testnet;
mod trace;

use driver::{Driver, Settings};
use kad_proto::Key160;
use options::{HELP, Options};
use report::Report;
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
    let (testnet, bootstrap) = if options.bootstrap.is_empty() {
        say(format!("starting {} nodes of the crate `mainline` on loopback", options.nodes))?;
        let testnet = Testnet::start(options.nodes)?;
        let bootstrap = testnet.bootstrap();
        (Some(testnet), bootstrap)
    } else {
        (None, options.bootstrap.clone())
    };

    // Nobody else needs to reach a node whose network is on loopback.
    let all_loopback = bootstrap.iter().all(|address| address.ip().is_loopback());
    let ip = if all_loopback { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let id = Key160::new(rand::random());
    let mut driver = Driver::new(
        ip,
        id,
        driver::config(options.deadline),
        Settings { drop: options.drop, serve: options.serve },
    )?;
    let does = if options.serve { "serving" } else { "listening" };
    say(format!("{does} on {} as node {}", driver.address(), driver.local()))?;

    let silent = driver.bootstrap(&bootstrap)?;
    if silent.len() == bootstrap.len() {
        return Err(format!("no bootstrap node answered: {}", list(&silent)).into());
    }
    if !silent.is_empty() {
        say(format!("no answer from bootstrap nodes: {}", list(&silent)))?;
    }

    for _ in 0..options.queries {
        driver.look_up(options.target.unwrap_or_else(|| Key160::new(rand::random())), options.deadline);
    }
    driver.run()?;

    let report = Report { driver: &driver, testnet: testnet.as_ref() };
    if options.json {
        writeln!(io::stdout(), "{}", report.json())?;
    } else {
        write!(io::stdout(), "{report}")?;
    }
    let code = report.exit_code();
    if options.serve {
        loop {
            driver.step()?;
        }
    }
    Ok(exit(code))
}

fn list(addresses: &[SocketAddrV4]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
