//! Many runs at once: their order, their sweeps, their means; and the verdicts of the weather table.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::cast_precision_loss)] // a test may

use kad_proto::sim::{Scenario, Workload};
use kad_simulate::csv::Csv;
use kad_simulate::runner::{self, Interval, RunResult, Sweep};
use kad_simulate::weather::{self, Figure, Format, Goal, Plan, Row, Trial};
use serde_json::{Value, json};
use std::process::{Command, ExitCode};

fn small() -> Scenario {
    let workload = Workload { lookups: 8, ..Workload::default() };
    Scenario { nodes: 60, workload, detailed_lookups: 1, ..Scenario::default() }
}

fn program(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kad-simulate")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// All that repeats of some runs.
fn repeatable(results: &[RunResult]) -> Vec<Value> {
    let each = |result: &RunResult| {
        let run = result.run.as_ref().unwrap();
        json!({ "labels": result.labels, "seed": result.seed, "run": run, "lookups": run.lookups, "health": run.health })
    };
    results.iter().map(each).collect()
}

#[test]
fn threads_change_neither_results_nor_their_order() {
    // The first ones take longest.
    let sweeps = ["nodes=200,60", "engine.alpha=1,5"].map(|text| Sweep::parse(text).unwrap());
    let variants = runner::combinations(&small(), &sweeps).unwrap();
    let run = |threads| repeatable(&runner::run(runner::with_seeds(&variants, &[3, 1]), threads));
    let one = run(1);
    assert_eq!(one, run(4));
    assert_eq!(one.len(), 8);
    let order: Vec<_> = one.iter().map(|run| (run["labels"].to_string(), run["seed"].to_string())).collect();
    assert_eq!(order[0], (r#"[["nodes","200"],["engine.alpha","1"]]"#.into(), "3".into()));
    assert_eq!(order[3], (r#"[["nodes","200"],["engine.alpha","5"]]"#.into(), "1".into()));
    let mut fingerprints: Vec<_> = one.iter().map(|run| run["run"]["fingerprint"].to_string()).collect();
    fingerprints.sort();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 8, "every seed and every value makes another run");
}

#[test]
fn a_run_that_fails_says_why_and_the_others_go_on() {
    let scenarios = [small(), Scenario { nodes: 0, ..small() }, small()].map(|it| (Vec::new(), it));
    let results = runner::run(scenarios.into_iter(), 2);
    assert!(results[0].run.is_ok() && results[2].run.is_ok());
    let error = results[1].run.as_ref().unwrap_err();
    assert!(error.contains("nodes must be 1 to"), "{error}");
}

#[test]
fn seeds_are_ranges_and_lists() {
    assert_eq!(runner::seeds("1..20").unwrap(), (1..=20).collect::<Vec<_>>());
    assert_eq!(runner::seeds("9, 1,3..5").unwrap(), [9, 1, 3, 4, 5]);
    for (text, complaint) in [
        ("", "`` is no seed"),
        ("1..x", "`x` is no seed"),
        ("5..4", "`5..4` is empty"),
        ("1,2,1", "seed 1 is there twice"),
        ("0..18446744073709551615", "more than 100,000 seeds"),
        ("1..60000,100001..160000", "more than 100,000 seeds"),
    ] {
        let error = runner::seeds(text).unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn sweeps_split_at_the_commas_of_the_list_and_name_the_field_of_a_mistake() {
    let values = |text: &str| Sweep::parse(text).unwrap().values;
    assert_eq!(values("engine.alpha=1, 3,10"), ["1", "3", "10"]);
    let lists = r#"link.round_trip={uniform=["1ms","2ms"]},{log-normal={median="8ms",sigma=0.5}}"#;
    assert_eq!(values(lists), [r#"{uniform=["1ms","2ms"]}"#, r#"{log-normal={median="8ms",sigma=0.5}}"#]);
    assert_eq!(values(r#"a="x,}\",y",'z,"'"#), [r#""x,}\",y""#, r#"'z,"'"#]);
    for (text, complaint) in [
        ("engine.alpha", "engine.alpha: no values"),
        ("=1,2", "no field"),
        ("engine.alpha=", "engine.alpha: an empty value"),
        ("engine.alpha=1,,2", "engine.alpha: an empty value"),
        ("engine.alpha=1,3,1", "engine.alpha: `1` is there twice"),
        ("link.round_trip={a=1", "link.round_trip: `}` is missing"),
        ("link.round_trip=[1}", "link.round_trip: `}` closes nothing"),
        ("link.round_trip=\"1", "link.round_trip: `\"` is missing"),
        ("seed=1,2", "seed: give seeds by --seeds"),
    ] {
        let error = Sweep::parse(text).unwrap_err();
        assert!(error.starts_with(complaint) || error.contains(complaint), "{text}: {error}");
    }
    for (text, complaint) in [
        ("engine.alfa=1,2", "--sweep: engine.alfa: unknown field `alfa`"),
        ("engine.alpha=1,many", "--sweep: engine.alpha: "),
        ("engine.alpha=1,0", "--sweep: engine.alpha=0: query.alpha must be 1 to"),
        ("engine.request_timeout=\"5 parsecs\"", "--sweep: engine.request_timeout: `5 parsecs` is no time"),
        ("preset=\"healthy\"", "--sweep: preset: "),
    ] {
        let error = runner::combinations(&small(), &[Sweep::parse(text).unwrap()]).unwrap_err();
        assert!(error.starts_with(complaint), "{text}: {error}");
    }
    let twice = ["engine.alpha=1,2", "engine.alpha=3"].map(|text| Sweep::parse(text).unwrap());
    let error = runner::combinations(&small(), &twice).unwrap_err();
    assert!(error.contains("engine.alpha: is swept twice"), "{error}");
    let swept = runner::combinations(&small(), &[Sweep::parse(lists).unwrap()]).unwrap();
    assert_ne!(
        format!("{:?}", swept[0].1.link.round_trip),
        format!("{:?}", swept[1].1.link.round_trip),
        "each has its value"
    );
    let replayed = Scenario { replay: "simulate --seed {seed}".to_owned(), ..small() };
    let variants = runner::combinations(&replayed, &[Sweep::parse("engine.alpha=1,3").unwrap()]).unwrap();
    assert_eq!(variants[1].1.replay, "simulate --seed {seed} --set 'engine.alpha=3'");
}

#[test]
fn intervals_are_those_of_student() {
    // Mean 3, standard deviation 1.58114, t(4) = 2.7764: 2.7764 * 1.58114 / 5^0.5 = 1.9632.
    let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!((interval.mean - 3.0).abs() < 1e-12 && (interval.half.unwrap() - 1.9632).abs() < 1e-4);
    assert_eq!(format!("{interval:.2}"), "3.00 ± 1.96");
    // Two values, t(1) = 12.7062: 12.7062 * 1.41421 / 2^0.5.
    assert!((Interval::of(&[0.0, 2.0]).half.unwrap() - 12.7062).abs() < 1e-4);
    // 32 values, t(31) = 2.03951; 61 values, t(60) = 2.00030. Deviations (32 / 31)^0.5 / 2 and (60 / 60)^0.5.
    let halves: Vec<_> = (0..32).map(|number| f64::from(number % 2)).collect();
    let expected = 2.039_51 * (32.0_f64 / 31.0).sqrt() / 2.0 / 32.0_f64.sqrt();
    assert!((Interval::of(&halves).half.unwrap() - expected).abs() < 2e-5);
    let ones: Vec<_> = (0..61).map(|number: i32| f64::from((number - 30).signum())).collect();
    let expected = 2.000_30 / 61.0_f64.sqrt();
    assert!((Interval::of(&ones).half.unwrap() - expected).abs() < 2e-5);
    assert_eq!(Interval::of(&[7.0]), Interval { mean: 7.0, half: None });
    assert_eq!(Interval::of(&[7.0]).to_string(), "7.0000");
    assert!(Interval::of(&[]).mean.is_nan());
}

#[test]
fn csv_is_flat_quoted_and_takes_columns_that_come_later() {
    let mut csv = Csv::new();
    csv.push(&json!({ "a": 1, "of": { "b": true, "c": null }, "asked": [{ "x": 1 }] })).unwrap();
    csv.push(&json!({ "of": { "c": "x, \"y\"" }, "list": [0.5, 2] })).unwrap();
    let mut bytes = Vec::new();
    csv.write(&mut bytes).unwrap();
    let expected = "a,of.b,of.c,list.0,list.1\n1,true,,,\n,,\"x, \"\"y\"\"\",0.5,2\n";
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn the_program_runs_many_and_writes_them() {
    let folder = std::env::temp_dir().join(format!("simulate-runner-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let common = ["publish", "--nodes", "60", "--broadcasts", "2", "--set", "workload.lookups=8", "--set"];
    let common = [&common[..], &["broadcasts.warmup_lookups=3", "--set"]].concat();
    let common = [&common[..], &["health=\"1s\"", "--seeds", "1..3", "--sweep", "engine.alpha=1,3"]].concat();
    let sheets = ["csv", "csv-lookups", "csv-broadcasts", "csv-health"];
    let write = |threads: &str| -> Vec<String> {
        let names = sheets.map(|sheet| path(&format!("{sheet}-{threads}")));
        let mut arguments: Vec<String> = common.iter().map(|it| (*it).to_owned()).collect();
        for (sheet, name) in sheets.iter().zip(&names) {
            arguments.extend([format!("--{sheet}"), name.clone()]);
        }
        arguments.extend(["--threads".to_owned(), threads.to_owned()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (code, out, error) = program(&arguments);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.contains(" ± ") && out.contains("recall") && out.contains("copies"), "{out}");
        assert!(out.contains("events/s on each of ") && out.contains("6 in "), "{out}");
        assert_eq!(out.lines().filter(|line| line.trim_start().starts_with("3  ")).count(), 2, "{out}");
        names.iter().map(|name| std::fs::read_to_string(name).unwrap()).collect()
    };
    let one = write("1");
    assert_eq!(one, write("4"));
    let rows = |text: &str| text.lines().count() - 1;
    assert_eq!(rows(&one[0]), 6);
    assert!(one[0].starts_with("seed,swept.engine.alpha,lookups,running,"), "{}", one[0]);
    assert!(one[0].lines().all(|line| !line.contains('"')), "{}", one[0]);
    for column in ["time_s.p50", "requests.mean", "broadcasts.return_s.p99", "fingerprint", "virtual_s"] {
        assert!(one[0].lines().next().unwrap().split(',').any(|it| it == column), "{column}: {}", one[0]);
    }
    let wide = one[0].lines().next().unwrap().split(',').count();
    assert!(one[0].lines().all(|line| line.split(',').count() == wide), "{}", one[0]);
    assert!(rows(&one[1]) >= 48 && one[1].contains(",workload,"), "{}", one[1]);
    assert_eq!(rows(&one[2]), 12);
    assert!(rows(&one[3]) > 6 && one[3].contains("by_cpl.0"), "{}", one[3]);

    let (code, out, _) = program(&[&common[..], &["--json"]].concat());
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (Some(0), 6));
    assert_eq!((&lines[5]["seed"], &lines[5]["swept"]["engine.alpha"]), (&json!(3), &json!(3)));
    for line in &lines {
        assert!(line["recall"].as_f64().is_some() && line["time_s"]["p50"].as_f64().is_some(), "{line}");
        assert!(line["events_per_s"].as_f64().unwrap() > 0.0 && line["error"].is_null(), "{line}");
    }
    // The same run alone says the same.
    let alone = ["publish", "--nodes", "60", "--broadcasts", "2", "--set", "workload.lookups=8"];
    let rest = [
        "--set",
        "broadcasts.warmup_lookups=3",
        "--set",
        "health=\"1s\"",
        "--seed",
        "3",
        "--set",
        "engine.alpha=3",
        "--json",
    ];
    let (_, out, _) = program(&[&alone[..], &rest].concat());
    let single: Value = serde_json::from_str(&out).unwrap();
    for field in ["fingerprint", "requests", "time_s", "ends", "broadcasts", "events", "virtual_s"] {
        assert_eq!(single[field], lines[5][field], "{field}");
    }
    assert!(single["events_per_s"].as_f64().unwrap() > 0.0 && single["health"][0]["at_s"].is_number());

    for (arguments, complaint) in [
        (&["healthy", "--sweep", "engine.alfa=1"][..], "--sweep: engine.alfa: unknown field"),
        (&["healthy", "--sweep", "engine.alpha"], "--sweep: engine.alpha: no values"),
        (&["healthy", "--seeds", "1..x"], "--seeds: `x` is no seed"),
        (&["healthy", "--seeds", "1,2", "--seed", "3"], "--seed or --seeds"),
        (&["--seeds", "1,2"], "need a preset"),
        (&["healthy", "--seeds", "1,2", "--log"], "go with a single run"),
        (&["healthy", "--threads", "2"], "--threads goes with"),
        (&["healthy", "--threads", "0", "--seeds", "1"], "0"),
        (&["healthy", "--csv", "/nowhere/at/all.csv"], "/nowhere/at/all.csv: "),
        (&["healthy", "join"], "unexpected argument \"join\""),
        (&["healthy", "--short"], "--short, --markdown, --met and --keep go with --weather"),
    ] {
        let (code, _, error) = program(arguments);
        assert!(code == Some(1) && error.contains(complaint), "{arguments:?}: {code:?} {error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn figure(name: &str, value: f64, goal: Goal) -> Figure {
    Figure { name: name.to_owned(), value, goal }
}

/// Figures of two seeds, 1 and 2, each with the verdict that it deserves.
fn cases() -> Vec<(&'static str, [f64; 2], Goal, bool)> {
    use Goal::{AtLeast, AtMost, Stated};
    vec![
        ("all above", [1.0, 1.1], AtLeast(1.0), true),
        ("one within 5 %", [0.951, 1.2], AtLeast(1.0), true),
        ("one beyond 5 %", [0.949, 1.2], AtLeast(1.0), false),
        ("the mean below", [0.98, 1.01], AtLeast(1.0), false),
        ("exactly", [0.1 + 0.2, 0.3], AtMost(0.3), true),
        ("one within 5 % above", [10.4, 9.0], AtMost(10.0), true),
        ("one beyond 5 % above", [10.6, 9.0], AtMost(10.0), false),
        ("the mean above", [10.2, 10.0], AtMost(10.0), false),
        ("nothing", [0.0, 0.0], AtMost(0.0), true),
        ("a bit, made up for", [0.001, -0.001], AtMost(0.0), false),
        ("less than nothing, made up for", [0.001, -0.001], AtLeast(0.0), false),
        ("below a negative goal", [-1.04, -0.9], AtLeast(-1.0), true),
        ("no number", [f64::NAN, 1.0], AtLeast(0.0), false),
        ("only stated", [1.0, 5.0], Stated, true),
    ]
}

#[allow(clippy::unnecessary_wraps)] // as a row is
fn all_cases(trial: Trial) -> Result<Vec<Figure>, String> {
    let index = usize::from(trial.seed == 2);
    Ok(cases().into_iter().map(|(name, values, goal, _)| figure(name, values[index], goal)).collect())
}

#[allow(clippy::unnecessary_wraps)]
fn seed_as_figure(trial: Trial) -> Result<Vec<Figure>, String> {
    // Whoever is first in the table is last to be done.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let size = if trial.short { 1.0 } else { 10.0 };
    Ok(vec![figure("seed", trial.seed as f64, Goal::AtMost(10.5)), figure("size, nodes", size, Goal::Stated)])
}

fn fails_by_seed(trial: Trial) -> Result<Vec<Figure>, String> {
    match trial.seed {
        2 => Err("it could not".to_owned()),
        3 => panic!("it broke at {}", trial.seed),
        _ => Ok(vec![figure("recall", 1.0, Goal::AtLeast(0.99))]),
    }
}

#[allow(clippy::unnecessary_wraps)]
fn changes_its_figures(trial: Trial) -> Result<Vec<Figure>, String> {
    Ok(match trial.seed {
        1 => vec![figure("a", 1.0, Goal::Stated), figure("b", 1.0, Goal::AtLeast(1.0))],
        _ => vec![figure("b", 1.0, Goal::AtLeast(2.0))],
    })
}

fn row(name: &'static str, run: fn(Trial) -> Result<Vec<Figure>, String>) -> Row {
    Row { name, world: "a | toy", reached: false, in_short: true, seeded: true, run }
}

fn plan(seeds: Option<&[u64]>) -> Plan {
    let seeds = seeds.map(<[u64]>::to_vec);
    Plan { names: Vec::new(), seeds, short: false, threads: 4, format: Format::Json, kept: Vec::new() }
}

fn played(rows: &[Row], plan: &Plan) -> (Result<ExitCode, String>, String) {
    let mut out = String::new();
    let code = weather::command(rows, plan, |text| {
        out.push_str(text);
        Ok(())
    });
    (code, out)
}

fn lines(out: &str) -> Vec<Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn a_figure_is_met_by_its_mean_and_its_worst_seed() {
    let (code, out) = played(&[row("X1", all_cases)], &plan(Some(&[1, 2])));
    let [line] = &lines(&out)[..] else { panic!("{out}") };
    for (name, [one, two], goal, met) in cases() {
        let said = &line["figures"][name];
        assert_eq!(said["met"], met, "{name}: {said}");
        if !one.is_nan() {
            let (mean, min, max) = (f64::midpoint(one, two), one.min(two), one.max(two));
            assert_eq!((&said["mean"], &said["min"], &said["max"]), (&json!(mean), &json!(min), &json!(max)));
        }
        assert_eq!(said["goal"], goal.to_string());
    }
    assert_eq!((&line["row"], &line["met"], &line["seeds"]), (&json!("X1"), &json!(false), &json!(2)));
    assert!(line["goal"].as_str().unwrap().starts_with("all above ≥ 1; one within 5 % ≥ 1; "), "{line}");
    assert!(!line["goal"].as_str().unwrap().contains("stated"), "{line}");
    assert_eq!(code, Ok(ExitCode::SUCCESS), "it is not marked as reached");
}

#[test]
fn a_row_that_was_reached_and_falls_short_is_a_failure() {
    let (met, missed) = (row("X1", seed_as_figure), row("X2", all_cases));
    let code = |rows: &[Row]| played(rows, &plan(Some(&[1, 2]))).0.unwrap();
    assert_eq!(code(&[met, missed]), ExitCode::SUCCESS);
    assert_eq!(code(&[Row { reached: true, ..met }, missed]), ExitCode::SUCCESS);
    assert_eq!(code(&[met, Row { reached: true, ..missed }]), ExitCode::FAILURE);
    let broken = Row { reached: true, ..row("X3", fails_by_seed) };
    assert_eq!(played(&[broken], &plan(Some(&[1]))).0, Ok(ExitCode::SUCCESS));
    assert_eq!(played(&[broken, met], &plan(Some(&[1, 3]))).0, Ok(ExitCode::FAILURE));
    let text = Plan { format: Format::Text, ..plan(Some(&[1, 2])) };
    let (_, out) = played(&[met, Row { reached: true, ..missed }], &text);
    assert!(out.ends_with("1 of 2 rows are met\nlost, though reached before: X2\n"), "{out}");
    assert!(out.contains("X2   a | toy (2 seeds): LOST\n"), "{out}");
    assert!(out.contains("X1   a | toy (2 seeds): met, and not marked as reached\n"), "{out}");
}

#[test]
fn a_figure_that_was_met_before_is_kept() {
    let rows = [row("X1", seed_as_figure), row("X2", all_cases), row("X3", fails_by_seed)];
    let (_, met) = played(&rows, &Plan { format: Format::Met, ..plan(Some(&[1])) });
    let kept: Vec<_> = met.lines().map(str::to_owned).collect();
    assert!(kept.contains(&"X1\tseed".to_owned()) && kept.contains(&"X3\trecall".to_owned()), "{met}");
    assert!(!met.contains("stated"), "{met}");
    let with = |kept: &[String], seeds: &[u64]| {
        let plan = Plan { format: Format::Text, kept: kept.to_vec(), ..plan(Some(seeds)) };
        let (code, out) = played(&rows, &plan);
        (
            code.unwrap(),
            out.lines().filter(|line| line.starts_with("lost")).map(str::to_owned).collect::<Vec<_>>(),
        )
    };
    assert_eq!(with(&kept, &[1]), (ExitCode::SUCCESS, Vec::new()));
    // Another seed misses the goal; a trial fails; a figure is not there any more.
    let (code, lost) = with(&["X1\tseed".to_owned()], &[20]);
    assert_eq!((code, lost), (ExitCode::FAILURE, vec!["lost, though reached before: X1: seed".to_owned()]));
    assert_eq!(with(&["X3\trecall".to_owned()], &[1, 2]).0, ExitCode::FAILURE);
    assert_eq!(with(&["X1\tgone".to_owned()], &[1]).0, ExitCode::FAILURE);
    // A row that is not run loses nothing.
    assert_eq!(with(&["L1\tseed".to_owned()], &[1]).0, ExitCode::SUCCESS);
}

#[test]
fn what_goes_wrong_in_a_trial_is_said_and_the_table_goes_on() {
    let rows = [row("X1", fails_by_seed), row("X2", changes_its_figures), row("X3", seed_as_figure)];
    let (code, out) = played(&rows, &plan(Some(&[1, 2, 3])));
    let lines = lines(&out);
    assert_eq!((code, lines.len()), (Ok(ExitCode::SUCCESS), 3));
    assert_eq!(lines[0]["errors"], json!(["seed 2: it could not", "seed 3: panic: it broke at 3"]));
    assert_eq!((&lines[0]["met"], &lines[0]["figures"]["recall"]["met"]), (&json!(false), &json!(true)));
    let errors = lines[1]["errors"].to_string();
    assert!(
        errors.contains("seed 2: b: another goal, ≥ 2") && errors.contains("a: 1 values of 3"),
        "{errors}"
    );
    assert_eq!((&lines[2]["met"], &lines[2]["errors"]), (&json!(true), &json!([])));
}

#[test]
fn rows_are_chosen_by_name_and_form_and_finish_in_order() {
    let slow = row("L1", seed_as_figure);
    let once =
        Row { seeded: false, in_short: false, ..row("L12", |_| Ok(vec![figure("a", 1.5, Goal::Stated)])) };
    let rows = [slow, once];
    let (code, out) = played(&rows, &plan(None));
    let all = lines(&out);
    assert_eq!(code, Ok(ExitCode::SUCCESS));
    assert_eq!((&all[0]["row"], &all[0]["seeds"]), (&json!("L1"), &json!(20)));
    assert_eq!(
        (&all[0]["figures"]["seed"]["mean"], &all[0]["met"]),
        (&json!(10.5), &json!(false)),
        "seed 20"
    );
    assert_eq!((&all[1]["row"], &all[1]["seeds"]), (&json!("L12"), &json!(1)));
    let (_, out) = played(&rows, &Plan { short: true, ..plan(None) });
    let [short] = &lines(&out)[..] else { panic!("{out}") };
    assert_eq!((&short["row"], &short["seeds"]), (&json!("L1"), &json!(2)));
    assert_eq!(short["figures"]["size, nodes"]["mean"], 1.0, "it is told that it is the short form");
    let (_, out) = played(&rows, &Plan { names: vec!["l12".to_owned()], ..plan(None) });
    assert!(out.starts_with("{\"row\":\"L12\"") && out.lines().count() == 1, "{out}");
    let of_names = |names: &[&str], short| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        played(&rows, &Plan { names, short, ..plan(None) }).0.unwrap_err()
    };
    assert_eq!(of_names(&["L1", "L2"], false), "`L2` is no row of the weather table; they are: L1, L12");
    assert_eq!(of_names(&["L12"], true), "`L12` is not part of the short form");
    let (_, out) = played(&rows, &Plan { format: Format::Markdown, ..plan(Some(&[4, 5])) });
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[2], "| L1 | a \\| toy | seed | 4.500 | 4 | 5 | ≤ 10.5 | met |");
    assert_eq!(lines[3], "|  |  | size, nodes | 10 | 10 | 10 | stated |  |");
    assert_eq!((lines[4], lines.len()), ("| L12 | a \\| toy | a | 1.500 | 1.500 | 1.500 | stated |  |", 5));
}

#[test]
fn the_program_knows_its_rows() {
    let (code, _, error) = program(&["--weather", "L1", "no-such-row"]);
    assert!(code == Some(1) && error.contains("is no row of the weather table; they are: "), "{error}");
    for row in weather::rows() {
        assert!(error.contains(row.name), "{}: {error}", row.name);
    }
    for (arguments, complaint) in [
        (&["--weather", "--seeds", "0"][..], "--seeds: at least 1"),
        (&["--weather", "--seeds", "x"], "--seeds: `x` is no seed"),
        (&["--weather", "--nodes", "7"], "--weather goes with"),
        (&["--weather", "--json", "--markdown"], "--json or --markdown or --met"),
    ] {
        let (code, _, error) = program(arguments);
        assert!(code == Some(1) && error.contains(complaint), "{arguments:?}: {code:?} {error}");
    }
}
