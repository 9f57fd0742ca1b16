//! The scenario files and the command line of `kad-simulate`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test may fail so

use kad_proto::sim::{Build, Change, Effect, Interarrival, Latency, Length, Place, Scenario, Who};
use kad_simulate::{file, presets};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_file_says_all_there_is_to_say() {
    let text = include_str!("../storm.toml");
    let scenario = file::read("storm.toml", text).unwrap();
    assert_eq!((scenario.seed, scenario.nodes, scenario.config.query.alpha), (9, 500, 5));
    assert!(scenario.dead > 0.29 && scenario.hostile.len() == 4 && scenario.partition.is_some());
    assert_eq!(
        (scenario.answers.names, scenario.answers.told, scenario.answers.without_asker),
        (16, Some(20), true)
    );
    assert_eq!((scenario.known_round_trips, scenario.lasts, scenario.sybils.len()), (8, 120_000 * MS, 1));
    assert!(scenario.sybils[0].in_tables && scenario.sybils[0].near == Place::Record(3));
    assert_eq!(scenario.link.dial.map(|dial| dial.most), Some(100));
    assert_eq!(scenario.workload.by, Who::Share(0.9));
    let sleep = Effect::Sleep { who: Who::Nodes([1, 2, 3].into()), time: 30_000 * MS };
    assert_eq!((scenario.changes.len(), &scenario.changes[4]), (7, &Change::new(60_000 * MS, sleep)));
    assert!(matches!(scenario.build, Build::Join(join) if join.seeds == 4 && join.every == 50 * MS));
    assert!(matches!(scenario.link.round_trip, Latency::Uniform(_, most) if most == 90 * MS));
    assert!(matches!(scenario.churn.unwrap().sessions, Length::Weibull { .. }));
    assert_eq!(scenario.workload.pace, Interarrival::Mean(500 * MS));
    assert_eq!(scenario.config.network.request_timeout, 3_000 * MS);
}

#[test]
fn the_soak_is_a_day_with_every_invariant_checked() {
    let scenario = file::read("soak.toml", include_str!("../soak.toml")).unwrap();
    assert!(scenario.check_invariants && scenario.config.routing.probe.is_some());
    assert_eq!((scenario.nodes, scenario.lasts), (1_000, 86_400_000 * MS));
    assert!(scenario.changes.iter().all(|change| change.at < scenario.lasts));
}

#[test]
fn a_mistake_is_named_by_line_and_field() {
    let mistakes = [
        ("nodes = 100\nnods = 5", "s.toml:2: nods: unknown field `nods`"),
        ("nodes = 100\n\n[link]\nlos = 0.1", "s.toml:4: los: unknown field `los`"),
        ("seed = 1\nnodes = \"many\"", "s.toml:2: nodes: invalid type"),
        (
            "[link]\nloss = 0.1\n[workload]\ndeadline = \"5 parsecs\"",
            "s.toml:4: deadline: `5 parsecs` is no time",
        ),
        ("[[hostile]]\nshare = 0.1\nbehaviour = \"nice\"", "s.toml:3: behaviour: unknown variant `nice`"),
        ("[link]\nloss = 1.5", "s.toml:2: link.loss: must be 0 to 1"),
        ("nodes = 50\n[engine]\nk = 20\nalpha = 0", "s.toml:4: query.alpha: must be 1 to 1,024"),
        (
            "[churn]\nsessions = { weibull = { scale = \"1s\", shape = 99 } }",
            "s.toml:2: churn.sessions: must be",
        ),
        ("seed = 1\npreset = \"sunny\"", "s.toml:2: preset: `sunny` is none of healthy"),
        ("nodes = 1 = 2", "s.toml:1: nodes:"),
        (
            "[[changes]]\nat = \"1s\"\neffect = { kil = { who = \"all\" } }",
            "s.toml:3: effect: unknown variant `kil`",
        ),
        (
            "nodes = 9\n[[changes]]\nat = \"1s\"\neffect = { kill = { who = { node = 9 } } }",
            "s.toml:4: change.who: must be numbers less than nodes",
        ),
        ("[link]\nround_trip = { matrix = \"no-such-file\" }", "s.toml:2: round_trip: no-such-file: "),
        ("[link.dial]\nmost = 0", "s.toml:2: link.dial.most: must be at least 1"),
        ("[answers]\nnames = 0", "s.toml:2: answers.names: must be 1 to 1,024"),
        (
            "[[sybil_sets]]\ncount = 5\nplaced = { claimant = 3 }",
            "s.toml:3: sybils.placed: must be of one Sybil",
        ),
        ("[workload]\ntargets = { nodes = [] }", "s.toml:2: workload.targets: must be at least one"),
    ];
    for (text, expected) in mistakes {
        let error = file::read("s.toml", text).unwrap_err();
        assert!(error.starts_with(expected), "{error}\n  instead of\n{expected}");
    }
}

#[test]
fn settings_of_the_command_line_are_those_of_a_file() {
    let mut scenario = Scenario::default();
    file::set("link.loss=0.25", &mut scenario).unwrap();
    file::set("workload.pace={every=\"1s\"}", &mut scenario).unwrap();
    assert!((scenario.link.loss - 0.25).abs() < 1e-9);
    assert_eq!(scenario.workload.pace, Interarrival::Every(1_000 * MS));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ten-cities.txt");
    file::set(&format!("link.round_trip={{matrix={file:?}}}"), &mut scenario).unwrap();
    assert!(matches!(&scenario.link.round_trip, Latency::Matrix(matrix) if matrix.size() == 10));
    file::set("sybils.count=7", &mut scenario).unwrap();
    file::set("sybils.groups=7", &mut scenario).unwrap();
    assert_eq!((scenario.sybils.len(), scenario.sybils[0].count, scenario.sybils[0].groups), (1, 7, 7));
    let error = file::set("link.losss=0.25", &mut scenario).unwrap_err();
    assert!(error.starts_with("--set:1: link.losss: unknown field `losss`"), "{error}");
}

#[test]
fn every_preset_is_sound() {
    for name in presets::NAMES {
        presets::named(name).unwrap().validate().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(presets::named("sunny").is_none());
}

#[test]
fn the_program_runs_and_complains() {
    let run = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_kad-simulate")).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let report = std::env::temp_dir().join(format!("simulate-report-{}", std::process::id()));
    let (code, out, _) =
        run(&["ipfs", "--nodes", "200", "--lookups", "20", "--json", "--report", report.to_str().unwrap()]);
    let page = std::fs::read_to_string(report.join("report.html")).unwrap();
    std::fs::remove_dir_all(&report).unwrap();
    let figures: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, figures["lookups"].as_u64()), (Some(0), Some(20)));
    assert!(page.matches("<svg").count() >= 6, "{page}");
    assert!(!["src=", "<link", "<script"].iter().any(|outside| page.contains(outside)), "{page}");
    let flight = std::env::temp_dir().join(format!("simulate-flight-{}", std::process::id()));
    let path = flight.to_str().unwrap();
    let first = std::env::temp_dir().join(format!("simulate-first-{}", std::process::id()));
    let (code, _, said) = run(&[
        "join",
        "--nodes",
        "30",
        "--lookups",
        "5",
        "--record",
        &format!("3={path}"),
        "--record",
        &format!("0={}", first.display()),
    ]);
    let bytes = std::fs::read(&flight).unwrap();
    assert!(code == Some(0) && said.contains(" life 1 of node 3, #") && first.exists(), "{said}");
    let (code, out, _) = run(&["--replay", path]);
    assert!(code == Some(0) && out.ends_with(" calls, no difference\n"), "{out}");
    // What one was told, told to another.
    let other = std::fs::read(&first).unwrap();
    let constructed = |bytes: &[u8]| 17 + u32::from_le_bytes(bytes[9..13].try_into().unwrap()) as usize;
    let mixed = [&other[..constructed(&other)], &bytes[constructed(&bytes)..]].concat();
    std::fs::write(&flight, mixed).unwrap();
    let (code, out, _) = run(&["--replay", path]);
    assert!(code == Some(1) && out.starts_with("call 1 at ") && out.contains("\n  + "), "{out}");
    std::fs::write(&flight, &bytes[..bytes.len() / 2]).unwrap();
    let (code, _, error) = run(&["--replay", path]);
    assert!(code == Some(1) && error.contains("cut short after"), "{error}");
    std::fs::write(&flight, &bytes[1..]).unwrap();
    let (code, _, error) = run(&["--replay", path]);
    assert!(code == Some(1) && error.contains("not a recording"), "{error}");
    std::fs::remove_file(&flight).unwrap();
    std::fs::remove_file(&first).unwrap();
    for (arguments, complaint) in [
        (&["--nodes", "many"][..], "many"),
        (&["sunny"], "neither a file nor one of healthy"),
        (&["missing.toml"], "missing.toml: "),
        (&["healthy", "--nodes", "0"], "nodes must be 1 to 8,388,608"),
        (&["healthy", "--set", "link.loss=7"], "link.loss must be 0 to 1"),
        (&["--frobnicate"], "--frobnicate"),
        (&["join", "--record", "7"], "NODE=FILE"),
        (&["join", "--record", "x=flight"], "NODE=FILE"),
        (&["join", "--record", "1000=flight"], "there is no such node: they are 0 to 999, or #"),
        (&["join", "--record", "#7=flight"], "there is no such node"),
        (&["--record", "7=flight"], "--record needs a preset"),
        (&["--replay", "missing"], "missing: "),
    ] {
        let (code, _, error) = run(arguments);
        assert!(code == Some(1) && error.contains(complaint), "{arguments:?}: {code:?} {error}");
    }
}
