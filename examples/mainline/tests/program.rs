//! The program: its exit codes, its messages, its JSON.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use kad_mainline::krpc::{Answer, Body, Message, Query};
use kad_proto::Key160;
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

/// The recording that the documentation is about, and its picture.
const LOOKUP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/recordings/lookup.kadrec");
const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/telemetry/lookup.svg");

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kad-mainline"))
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The address of a port that was free a moment ago.
fn closed() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn help_names_every_option() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let options = "bootstrap load nodes port target queries put get announce announce-port peers crawl optimistic quorum \
        correct deadline drop stay serve every probe trace-upkeep save svg record otlp replay json help";
    for option in options.split(' ') {
        assert!(stdout(&output).contains(&format!("\n  --{option} ")), "{option}: {}", stdout(&output));
    }
    assert!(stdout(&output).contains("Exit code"));
}

#[test]
fn bad_arguments_are_named() {
    let cases: [(&[&str], &str); 47] = [
        (&["--frobnicate"], "--frobnicate"),
        (&["target"], "target"),
        (&["-x"], "-x"),
        (&["--nodes"], "missing argument"),
        (&["--nodes", "0"], "--nodes 0: not a number from 1 to 1000"),
        (&["--nodes", "many"], "--nodes many: not a number"),
        (&["--nodes", "1001"], "--nodes 1001: not a number"),
        (&["--k", "0"], "--k 0: not a number from 1 to 40"),
        (&["--k", "41"], "--k 41: not a number from 1 to 40"),
        (&["--queries", "-1"], "--queries -1: not a number"),
        (&["--target", "abc"], "--target abc: a key has 40 hexadecimal digits, not 3"),
        (&["--target", &"x".repeat(40)], "no hexadecimal digit at position 0"),
        (&["--deadline", "5"], "--deadline 5: not a time"),
        (&["--deadline", "s"], "--deadline s: not a time"),
        (&["--deadline", "-1s"], "not a time"),
        (&["--deadline", "5h"], "--deadline 5h: not a time"),
        (&["--deadline", "0s"], "--deadline 0s: no time at all"),
        (&["--deadline", "9999999999999999999m"], "too long"),
        (&["--drop", "1.5"], "--drop 1.5: not a share from 0 to 1"),
        (&["--drop", "NaN"], "--drop NaN: not a share"),
        (&["--bootstrap", "127.0.0.1"], "--bootstrap 127.0.0.1: "),
        (&["--bootstrap", "127.0.0.1:0"], "--bootstrap 127.0.0.1:0: no IPv4 address and port"),
        (&["--bootstrap", "127.0.0.1:1", "--nodes", "3"], "--nodes: no nodes are started with --bootstrap"),
        (&["--load", "file", "--nodes", "3"], "--nodes: no nodes are started with --bootstrap or --load"),
        (&["--port", "0"], "--port 0: not a number from 1 to 65535"),
        (&["--port", "65536"], "--port 65536: not a number"),
        (&["--stay", "long"], "--stay long: not a time"),
        (&["--stay", "1s", "--serve"], "--serve: how long to stay is said already"),
        (&["--serve", "--stay", "1s"], "--stay: how long to stay is said already"),
        (&["--every", "1s"], "--every: only with --stay or --serve"),
        (&["--probe", "1s"], "--probe: only with --stay or --serve"),
        (&["--trace-upkeep"], "--trace-upkeep: only with --stay or --serve"),
        (&["--put"], "missing argument"),
        (&["--put", &"x".repeat(997)], "an item has no more than 1000 bytes, bencoded"),
        (&["--get", "abc"], "--get abc: a key has 40 hexadecimal digits, not 3"),
        (&["--announce", "abc"], "--announce abc: a key"),
        (&["--peers", "abc"], "--peers abc: a key"),
        (&["--announce-port", "1"], "--announce-port: only with --announce"),
        (&["--announce-port", "0"], "--announce-port 0: not a number from 1 to 65535"),
        (&["--quorum", "1", "--put", "x"], "--quorum: only with --get or --peers"),
        (&["--correct", "--put", "x"], "--correct: only with --get"),
        (&["--svg", "x", "--serve"], "--svg: not with --stay or --serve"),
        (&["--replay", "x", "--nodes", "3"], "--nodes: not with --replay, which runs nothing"),
        (&["--serve", "--replay", "x"], "--serve: not with --replay"),
        (&["--replay", "/no such file"], "/no such file: "),
        (&["--record", "/no such folder/x"], "/no such folder/x: "),
        (&["--optimistic", "--crawl"], "--optimistic: only with --put or --announce"),
    ];
    for (arguments, message) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_collector_that_this_program_cannot_send_to_is_refused() {
    let (url, message) = if cfg!(feature = "otlp") {
        ("https://127.0.0.1:1", "--otlp https://127.0.0.1:1: there is no TLS in this build")
    } else {
        ("http://127.0.0.1:1", "cargo run --release -p kad-mainline --features otlp -- --otlp URL")
    };
    let output = run(&["--otlp", url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(message), "{}", stderr(&output));
}

#[test]
fn a_bootstrap_node_that_does_not_answer_is_an_error() {
    let (one, two) = (closed().to_string(), closed().to_string());
    let output = run(&["--json", "--bootstrap", &one, "--bootstrap", &two]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no bootstrap node answered"), "{}", stderr(&output));
    assert!(stderr(&output).contains(&one) && stderr(&output).contains(&two));
    assert_eq!(json(&output)["exit"], 1);
    assert!(json(&output)["error"].as_str().unwrap().contains(&one));
}

#[test]
fn a_lookup_in_a_network_of_its_own() {
    let target = "00112233445566778899aAbBcCdDeEfF00112233";
    let output = run(&["--json", "--deadline", "1m", "--target", target, "--queries", "2"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!((&report["nodes"], &report["exit"]), (&30.into(), &0.into()));
    let lookups = report["lookups"].as_array().unwrap();
    assert_eq!(lookups.len(), 2);
    for lookup in lookups {
        assert_eq!(lookup["target"], target.to_lowercase());
        let truth = lookup["true_closest"].as_array().unwrap();
        assert_eq!((truth.len(), &truth[0]["of"]), (1, &8.into()));
        assert!(truth[0]["found"].as_u64().unwrap() >= 7, "{truth:?}");
        assert_eq!(lookup["closest"].as_array().unwrap().len(), 8);
        let spans = lookup["spans"].as_array().unwrap();
        assert_eq!(lookup["stats"]["sent"], spans.len());
        for span in spans {
            assert_eq!(span["trace_id"], lookup["trace_id"]);
            assert!(span["deadline_us"].as_u64() <= lookup["deadline_us"].as_u64());
            let parent = &span["parent_id"];
            assert!(
                *parent == lookup["span_id"] || spans.iter().any(|other| other["span_id"] == *parent),
                "{span}"
            );
        }
    }
}

/// The SHA-1 of "5:hello", and a key that nothing is stored under.
const HELLO: &str = "e28910ea0adb94dd45ced75fbff3e135c01bc437";
const NOWHERE: &str = "00112233445566778899aabbccddeeff00112233";

#[test]
fn what_is_put_is_got_and_who_is_announced_is_found() {
    let arguments = ["--put", "hello", "--get", HELLO, "--announce", NOWHERE, "--announce-port", "7"];
    let arguments = [&arguments[..], &["--peers", NOWHERE, "--deadline", "1m"]].concat();
    let output = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["lookups"], Value::Array(Vec::new()), "none was asked for");
    let [put, got, announced, peers] = &report["actions"].as_array().unwrap()[..] else { panic!("{report}") };
    let events = [put, got, announced, peers].map(|action| action["event"].as_str().unwrap());
    assert_eq!(events, ["put", "get", "announce", "peers"]);
    for action in [put, got, announced, peers] {
        let spans = action["spans"].as_array().unwrap();
        assert_eq!(action["stats"]["sent"], spans.len());
        assert!(spans.iter().all(|span| span["trace_id"] == action["trace_id"]), "{action}");
    }
    assert_eq!((&put["target"], &put["strategy"]), (&HELLO.into(), &"follow-up".into()));
    let count = put["stores"].as_array().unwrap().len();
    assert!(count == 8 && put["stored"] == count, "{put}");
    assert_eq!((&got["text"], &got["outcome"]), (&"hello".into(), &"quorum".into()));
    assert_eq!(announced["stored"], 8, "{announced}");
    assert_eq!((&got["own"], &peers["peers"][0]["own"]), (&false.into(), &false.into()));
    assert_eq!(peers["peers"][0]["address"], "127.0.0.1:7");

    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        &format!("put of {HELLO}: \"hello\""),
        "  found \"hello\", whose SHA-1 is the target",
        "  peer 127.0.0.1:7, named by ",
    ] {
        assert!(stdout(&output).contains(&format!("\n{line}")), "{line}: {}", stdout(&output));
    }
}

#[test]
fn more_than_the_8_closest_are_searched_for_where_that_is_wanted() {
    let output = run(&["--json", "--deadline", "1m", "--queries", "1", "--put", "hello", "--k", "12"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let truth = &report["lookups"][0]["true_closest"];
    assert_eq!((&truth[0]["of"], &truth[1]["of"]), (&8.into(), &12.into()));
    assert_eq!(report["lookups"][0]["closest"].as_array().unwrap().len(), 12);
    assert_eq!(report["actions"][0]["stored"], 12);
}

#[test]
fn what_is_nowhere_is_not_found_and_that_is_told_by_the_exit_code() {
    for (what, says) in [("--get", "not found: nobody that was asked has it"), ("--peers", "knows a peer")] {
        let output = run(&["--nodes", "12", "--deadline", "1m", what, NOWHERE]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(stdout(&output).contains(says), "{}", stdout(&output));
    }
    let output = run(&["--nodes", "12", "--json", "--deadline", "1m", "--put", "hello", "--get", NOWHERE]);
    assert_eq!((output.status.code(), &json(&output)["exit"]), (Some(3), &3.into()));
    let exits = [0, 1].map(|action| json(&output)["actions"][action]["exit"].clone());
    assert_eq!(exits, [0, 3]);
}

/// What a scripted node answers: nothing, an answer, or an error.
type Script = fn(Query) -> Option<Result<Answer, (i64, String)>>;

/// A node that answers by this script. Says its address.
fn serve(script: Script) -> String {
    let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = node.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = node.recv_from(&mut buffer) {
            let Ok(Message { transaction, body: Body::Query { query, .. } }) =
                Message::decode(&buffer[..length])
            else {
                continue;
            };
            let body = match script(query) {
                None => continue,
                Some(Ok(answer)) => Body::Response { from: Key160::new([9; 20]), answer },
                Some(Err((code, text))) => Body::Error { code, text },
            };
            let _ = node.send_to(&Message { transaction, body }.encode().unwrap(), from);
        }
    });
    address
}

#[test]
fn a_put_that_came_too_late_is_told_by_the_exit_code() {
    // A node that answers no other query than that of the bootstrap.
    let address = serve(|query| {
        let answer = Answer { nodes: Some(Vec::new()), ..Answer::default() };
        matches!(query, Query::FindNode { .. }).then_some(Ok(answer))
    });
    let output = run(&["--bootstrap", &address, "--deadline", "300ms", "--put", "hello", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(json(&output)["actions"][0]["stored"], 0);
}

#[test]
fn an_optimistic_put_without_an_estimate_says_that_it_is_none() {
    let output = run(&["--nodes", "12", "--deadline", "1m", "--put", "hello", "--optimistic"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let line = "follow-up instead of optimistic: not enough data: 0 of 5 lookups";
    assert!(stdout(&output).contains(line), "{}", stdout(&output));
}

#[test]
fn a_store_that_is_refused_is_told_with_its_reason() {
    let address = serve(|query| {
        let token = Answer { nodes: Some(Vec::new()), token: Some(vec![1]), ..Answer::default() };
        let refused = matches!(query, Query::Put { .. }).then(|| Err((202, "No \x1b[2Jroom".into())));
        refused.or(Some(Ok(token)))
    });
    let arguments = ["--bootstrap", &address, "--put", "hello"];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let line = format!("  {address:<21}  refused: error 202 \"No \\u{{1b}}[2Jroom\"\n");
    assert!(stdout(&output).contains(&line), "{}", stdout(&output));
    assert!(stdout(&output).contains("  stored with 0 of 1 nodes\n"), "{}", stdout(&output));
    let store = &json(&run(&[&arguments[..], &["--json"]].concat()))["actions"][0]["stores"][0];
    assert_eq!((&store["outcome"], &store["address"]), (&"refused".into(), &address.as_str().into()));
    assert_eq!(store["reason"], "error 202 \"No \\u{1b}[2Jroom\"");
}

#[test]
fn a_crawl_maps_the_network_and_draws_it() {
    let path = std::env::temp_dir().join(format!("kad-proto-{:x}.dot", rand::random::<u64>()));
    let path = path.to_str().unwrap();
    let output = run(&["--json", "--deadline", "1m", "--crawl", path]);
    let dot = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let crawl = &report["actions"][0];
    assert_eq!((&crawl["event"], &crawl["outcome"]), (&"crawl".into(), &"complete".into()));
    let counts = ["nodes", "reachable", "unreachable"].map(|what| crawl["counts"][what].as_u64().unwrap());
    assert_eq!(counts, [30, 30, 0]);
    assert_eq!(crawl["nodes"].as_array().unwrap().len(), 30);
    assert_eq!(dot.matches(" -> ").count(), crawl["edges"].as_array().unwrap().len());
    assert_eq!(dot.matches("[label=").count(), 30);

    let output = run(&["--crawl", "--deadline", "1m", "--nodes", "8"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("\n  8 nodes: 8 reachable, 0 unreachable"), "{}", stdout(&output));
    let output = run(&["--crawl=/no such folder/x.dot", "--nodes", "8"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no such folder/x.dot: "), "{}", stderr(&output));
    // However fast it is.
    let output = run(&["--crawl", "--deadline", "1ms", "--nodes", "60"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stdout(&output).contains("deadline exceeded"), "{}", stdout(&output));
}

#[test]
fn a_node_that_stays_lists_its_upkeep() {
    let output = run(&["--stay", "500ms", "--nodes", "8", "--json", "--trace-upkeep", "--put", "hello"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let events: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("put").len(), 1, "{events:?}");
    let upkeep = of("upkeep");
    let ids: Vec<_> = upkeep.iter().map(|span| &span["span_id"]).collect();
    let linked = |initiator: &str| {
        let of = upkeep.iter().filter(|span| span["initiator"] == initiator);
        of.filter(|span| ids.contains(&&span["link"]["span_id"])).count()
    };
    assert!(upkeep.iter().any(|span| span["initiator"] == "join"), "{upkeep:?}");
    assert!(linked("include") > 0, "checks of whom the answers named: {upkeep:?}");
    let output = run(&["--stay", "500ms", "--nodes", "8", "--trace-upkeep"]);
    assert!(stdout(&output).contains("\nupkeep "), "{}", stdout(&output));
    assert!(stdout(&output).contains("\n    linked to "), "{}", stdout(&output));
}

#[test]
fn a_deadline_that_is_too_short_is_told_by_the_exit_code() {
    // A node that answers once (to be found) and then names nodes that are silent.
    let silent: Vec<_> = (0..5).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let named = silent.iter().zip(1..).map(|(socket, id)| {
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { panic!("an IPv4 socket") };
        (Key160::new([id; 20]), address)
    });
    let named: Vec<_> = named.collect();
    let node = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = node.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = node.recv_from(&mut buffer) {
            let Ok(Message { transaction, .. }) = Message::decode(&buffer[..length]) else { continue };
            let body = Body::Response {
                from: Key160::new([9; 20]),
                answer: Answer { nodes: Some(named.clone()), ..Answer::default() },
            };
            let _ = node.send_to(&Message { transaction, body }.encode().unwrap(), from);
        }
    });
    let arguments = ["--bootstrap", &address, "--deadline", "700ms"];
    let output = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let lookup = &json(&output)["lookups"][0];
    assert_eq!(lookup["outcome"], "deadline exceeded");
    assert_eq!(lookup["closest"].as_array().unwrap().len(), 1);
    assert_eq!(lookup["closest"][0]["address"], address);
    // It asked some of them, and gave up all of these.
    let stat = |name| lookup["stats"][name].as_u64().unwrap();
    assert!(stat("cancelled") >= 1);
    assert_eq!(stat("cancelled"), stat("sent") - 1);
    assert!(lookup["ended_us"].as_u64() >= lookup["deadline_us"].as_u64());

    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).contains("deadline exceeded"), "{}", stdout(&output));
    assert!(stdout(&output).contains(&address));
}

/// A running program and the lines that it prints. It is killed when dropped.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads on to the next line that begins so.
    fn line(&mut self, begins: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("no line begins with {begins}"))
    }

    /// Reads on to the next event of this name.
    fn event(&mut self, name: &str) -> Value {
        let mut events =
            self.lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        events.find(|event| event["event"] == name).unwrap_or_else(|| panic!("no event {name}"))
    }

    /// What Ctrl-C does. Returns the lines that follow; the exit code has to be this.
    #[cfg(unix)]
    fn interrupt(mut self, code: i32) -> Vec<String> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let rest = self.lines.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{rest:?}");
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_serving_node_is_a_bootstrap_node_for_others() {
    let mut serving = Running::start(&["--serve", "--nodes", "12", "--deadline", "1m"]);
    let line = serving.line("serving on ");
    let words: Vec<_> = line.split(' ').collect();
    let (address, key) = (words[2], words[5]);
    // Its own lookup is over, and its routing table full.
    serving.line("lookup of ");

    let output = run(&["--json", "--bootstrap", address, "--deadline", "1m", "--k", "20"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["nodes"], Value::Null);
    let closest = report["lookups"][0]["closest"].as_array().unwrap();
    assert!(closest.iter().any(|node| node["key"] == key && node["address"] == address), "{closest:?}");
    assert!(closest.len() >= 10, "it led to the others: {closest:?}");
}

/// Another program stores something with a node that stays, which then finds it without asking anybody.
#[test]
#[cfg(unix)]
fn a_node_that_stays_finds_what_others_have_stored_with_it() {
    let arguments = ["--serve", "--nodes", "4", "--every", "100ms", "--get", HELLO, "--peers", NOWHERE];
    let mut serving = Running::start(&arguments);
    let first = serving.line("serving on ");
    let address = first.split(' ').nth(2).unwrap();
    serving.line("get of ");
    let arguments = ["--bootstrap", address, "--deadline", "1m", "--put", "hello"];
    let output = run(&[&arguments[..], &["--announce", NOWHERE, "--announce-port", "7"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serving.line("  found \"hello\", whose SHA-1 is the target, in the own store");
    serving.line("  peer 127.0.0.1:7, in the own store and named by ");
    let rest = serving.interrupt(3);
    let last = rest.last().unwrap();
    assert!(last.ends_with(" served, 0 above the limit of their host and 0 above that of all"), "{last}");
}

#[test]
#[cfg(unix)]
fn a_node_that_stays_until_interrupted_shows_its_table_and_reports_in_the_end() {
    let mut serving = Running::start(&["--serve", "--nodes", "12"]);
    serving.line("lookup of ");
    let rest = serving.interrupt(0);
    let plot = rest.iter().position(|line| line.starts_with("routing table after ")).unwrap();
    let known: usize = rest[plot].split(' ').nth(5).unwrap().parse().unwrap();
    let bars = rest[plot + 1..].iter().take_while(|line| line.starts_with("  cpl "));
    let drawn: usize = bars.map(|bar| bar.matches(['#', '?']).count()).sum();
    assert_eq!(drawn, known, "{rest:?}");
    assert!((10..=12).contains(&known), "{rest:?}");
    assert!(rest.last().unwrap().starts_with("datagrams: "), "{rest:?}");
}

#[test]
#[cfg(unix)]
fn a_node_that_stays_looks_up_its_targets_again_and_tells_events_as_they_come() {
    let targets = ["00112233445566778899aabbccddeeff00112233", "ffeeddccbbaa99887766554433221100ffeeddcc"];
    let arguments =
        ["--serve", "--json", "--nodes", "8", "--every", "1ms", "--target", targets[0], "--target"];
    let mut staying = Running::start(&[&arguments[..], &targets[1..]].concat());
    let admitted = staying.event("admitted");
    assert_eq!(admitted["key"].as_str().unwrap().len(), 40, "{admitted}");
    let mut looked_up: Vec<_> = (0..6).map(|_| staying.event("lookup")["target"].clone()).collect();
    looked_up.sort_by_key(ToString::to_string);
    assert_eq!(looked_up, [[targets[0]; 3], [targets[1]; 3]].concat(), "three rounds");
    let rest = staying.interrupt(0);
    let rest: Vec<Value> = rest.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [.., table, report] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!(table["event"], "table");
    let counted = table["buckets"].as_array().unwrap().iter().map(|bucket| bucket["nodes"].as_u64().unwrap());
    assert_eq!(counted.sum::<u64>(), table["nodes"].as_u64().unwrap());
    assert_eq!((&report["event"], &report["exit"]), (&"report".into(), &0.into()));
    let requests = |what: &str| report["requests"][what].as_u64().unwrap();
    let ended = ["answered", "failed", "timed_out", "cancelled", "in_flight"].map(requests);
    assert_eq!(requests("sent"), ended.iter().sum::<u64>());
}

#[test]
fn what_one_run_saves_another_begins_with() {
    let mut serving = Running::start(&["--serve", "--nodes", "12"]);
    let line = serving.line("serving on ");
    let address = line.split(' ').nth(2).unwrap();
    serving.line("lookup of ");

    let path = std::env::temp_dir().join(format!("kad-proto-{:x}.json", rand::random::<u64>()));
    let path = path.to_str().unwrap();
    let first = json(&run(&["--json", "--bootstrap", address, "--save", path]));
    let second = run(&["--json", "--load", path, "--target", NOWHERE, "--k", "20"]);
    std::fs::remove_file(path).unwrap();
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    let second = json(&second);
    assert_eq!(first["local"]["key"], second["local"]["key"], "it has the same id");
    assert!(second["lookups"][0]["closest"].as_array().unwrap().len() >= 10, "{second}");

    let output = run(&["--load", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(path), "{}", stderr(&output));
    let output = run(&["--bootstrap", address, "--save", "/no such folder/table.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no such folder/table.json: "), "{}", stderr(&output));
}

#[test]
#[cfg(unix)]
fn a_table_that_is_nearly_empty_does_not_replace_what_was_saved() {
    let folder = Folder::new();
    let file = folder.path("table.json");
    let mut serving = Running::start(&["--serve", "--nodes", "12", "--save", &file]);
    serving.line("lookup of ");
    serving.interrupt(0);
    let saved = folder.read("table.json");
    // Another run meets nobody.
    let dead = closed().to_string();
    let output = run(&["--stay", "1s", "--bootstrap", &dead, "--save", &file]);
    assert_eq!(output.status.code(), Some(1), "nobody has answered: {output:?}");
    assert!(stderr(&output).contains("no bootstrap node answered"), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("{file}: kept, with ")), "{}", stdout(&output));
    assert!(folder.read("table.json") == saved);
}

#[test]
#[cfg(unix)]
fn a_network_begins_with_a_node_that_knows_nobody() {
    let mut first = Running::start(&["--serve"]);
    let line = first.line("serving on ");
    let words: Vec<_> = line.split(' ').collect();
    let (address, key) = (words[2], words[5]);
    assert!(address.starts_with("0.0.0.0:"), "others are to reach it: {address}");
    first.line("nobody is known: this is the first node of a network");
    let output = run(&["--json", "--bootstrap", address]);
    assert_eq!(json(&output)["lookups"][0]["closest"][0]["key"], key, "{output:?}");
    first.interrupt(0);
}

#[test]
#[cfg(unix)]
fn three_programs_of_which_two_know_the_first_know_each_other() {
    let address = closed();
    let (text, port) = (address.to_string(), address.port().to_string());
    let first = Running::start(&["--serve", "--json", "--trace-upkeep", "--port", &port]);
    let others =
        [(); 2].map(|()| Running::start(&["--serve", "--json", "--trace-upkeep", "--bootstrap", &text]));
    // None is stopped before all have heard of each other: they may have to ask the first once more.
    let mut nodes: Vec<_> = [first].into_iter().chain(others).collect();
    for (place, node) in nodes.iter_mut().enumerate() {
        // It shows its table each 5 s. If both others ask the first before it knows either, they hear of each other by
        // their next bootstraps, some ten seconds later.
        let (mut seen, mut tables, mut knows_both) = (String::new(), 0, false);
        while tables < 9 && !knows_both {
            let line = node.lines.next().unwrap().unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            tables += u32::from(event["event"] == "table");
            knows_both = event["event"] == "table" && event["nodes"] == 2;
            seen += &(line + "\n");
        }
        assert!(knows_both, "after 45 s node {place} does not know the other two:\n{seen}");
    }
}

#[test]
#[cfg(unix)]
fn a_node_that_serves_waits_for_its_bootstrap_node() {
    let address = closed();
    let text = address.to_string();
    let mut waiting = Running::start(&["--serve", "--bootstrap", &text]);
    waiting.line(&format!("no answer from bootstrap nodes: {text}, which are asked again"));
    let mut first = Running::start(&["--serve", "--port", &address.port().to_string()]);
    first.line("serving on ");
    // What there is to do waits until somebody is there.
    waiting.line("lookup of ");
    let rest = waiting.interrupt(0);
    assert!(rest.iter().any(|line| line.contains(&text)), "{rest:?}");
}

#[test]
fn a_name_that_cannot_be_resolved_is_a_warning_as_long_as_something_remains() {
    let name = "no-such-host.invalid:6881";
    let mut serving = Running::start(&["--serve", "--nodes", "8"]);
    let line = serving.line("serving on ");
    let address = line.split(' ').nth(2).unwrap();
    let output = run(&["--json", "--bootstrap", name, "--bootstrap", address]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stderr(&output).contains(&format!("warning: --bootstrap {name}: ")), "{}", stderr(&output));

    let output = run(&["--bootstrap", name]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("error: --bootstrap {name}: ")), "{}", stderr(&output));
    assert!(!stderr(&output).contains("warning: "), "{}", stderr(&output));

    // One that stays waits for it.
    let mut waiting = Running::start(&["--serve", "--bootstrap", name]);
    waiting.line("routing table after ");
}

#[test]
fn a_node_leaves_when_its_time_is_over() {
    let output = run(&["--stay", "300ms", "--nodes", "8"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("\nrouting table after 0 s: "), "{}", stdout(&output));
}

/// A folder of its own, which is gone when this is dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("kad-proto-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The waterfalls of a text: the lines from that with an id, exclusive, to one that is no line of a waterfall.
fn waterfalls(text: &str) -> Vec<Vec<&str>> {
    let mut lines = text.lines();
    let mut waterfalls = Vec::new();
    while lines.any(|line| line.starts_with("  trace ")) {
        // The head, and lines with a bar: what begins late has few spaces before it.
        let is_of_it = |line: &&str| line.trim_start().starts_with("at ms") || line.contains(" |");
        waterfalls.push(lines.by_ref().take_while(is_of_it).collect());
    }
    waterfalls
}

#[test]
fn what_is_recorded_is_replayed_to_the_same_traces() {
    let folder = Folder::new();
    let [file, run_svg, svg, again] = ["a.kadrec", "run.svg", "a.svg", "b.svg"].map(|name| folder.path(name));
    let arguments = ["--nodes", "30", "--drop", "0.1", "--deadline", "1m", "--queries", "3"];
    let does = ["--put", "hello", "--get", HELLO, "--correct", "--record", &file, "--svg", &run_svg];
    // Where a store is lost, and its correction too, the exit code tells that: then once more.
    let mut runs = (0..5).map(|_| run(&[&arguments[..], &does].concat()));
    let run = runs.find(|run| run.status.code() == Some(0)).expect("one of five runs loses no correction");
    let drawn = waterfalls(stdout(&run));
    assert!(drawn.len() >= 5, "lookups, a put, a get, and perhaps its correction: {drawn:?}");
    assert!(drawn.iter().flatten().count() > 60);

    let replayed = self::run(&["--replay", &file, "--svg", &svg]);
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    assert_eq!(waterfalls(stdout(&replayed)), drawn);
    let first = stdout(&replayed).lines().next().unwrap();
    assert!(first.ends_with(" calls, no difference"), "{first}");
    assert_eq!(folder.read("run.svg"), folder.read("a.svg"), "the picture of the run");

    let second = self::run(&["--replay", &file, "--svg", &again]);
    assert_eq!((second.stdout, folder.read("b.svg")), (replayed.stdout, folder.read("a.svg")));

    let json = json(&self::run(&["--replay", &file, "--json"]));
    assert_eq!((&json["exit"], &json["difference"]), (&0.into(), &Value::Null));
    let operations = json["operations"].as_array().unwrap();
    assert_eq!(operations.len(), drawn.len());
    let names: Vec<_> = operations.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(&names[..5], ["kad find", "kad find", "kad find", "kad broadcast", "kad message"]);
    for (operation, lines) in operations.iter().zip(&drawn) {
        let spans = operation["spans"].as_array().unwrap();
        // A line for the operation itself, and one above all.
        assert_eq!(spans.len() + 2, lines.len());
        assert!(spans.iter().all(|span| span["trace_id"] == operation["trace_id"]));
    }
    if let Some(correction) = operations.get(5) {
        assert_eq!(correction["trace_id"], operations[4]["trace_id"], "it is a part of the trace of the get");
    }
}

/// Where the frames of a recording begin: its construction, its calls, its end.
fn frames(recording: &[u8]) -> Vec<usize> {
    let mut places = vec![9];
    while let Some(length) = places.last().and_then(|place| recording.get(*place..*place + 4)) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        places.push(places.last().unwrap() + 8 + length);
    }
    places
}

#[test]
fn a_file_that_cannot_be_replayed_or_comes_out_otherwise_is_an_error() {
    let folder = Folder::new();
    let file = folder.path("a.kadrec");
    assert_eq!(run(&["--nodes", "8", "--record", &file]).status.code(), Some(0));
    let whole = folder.read("a.kadrec");
    let places = frames(&whole);
    let mut damaged = whole.clone();
    damaged[places[2] - 1] ^= 1;
    let cut = &whole[..whole.len() - 5];
    // Without its first contacts, the lookup asks others.
    let other = [&whole[..places[2]], &whole[places[4]..]].concat();
    let cases: [(&[u8], &str); 5] = [
        (b"{}", "not a recording"),
        (b"", "not a recording"),
        (cut, "cut short after "),
        (&damaged, "damaged after "),
        (&whole[..3], "not a recording"),
    ];
    for (bytes, says) in cases {
        std::fs::write(&file, bytes).unwrap();
        let output = run(&["--replay", &file]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let line = format!("error: {file}: {says}");
        assert!(stderr(&output).starts_with(&line), "{line}: {}", stderr(&output));
    }
    std::fs::write(&file, other).unwrap();
    let output = run(&["--replay", &file]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).starts_with("call "), "{}", stdout(&output));
    assert!(stdout(&output).contains("came out, and something else had:\n    "), "{}", stdout(&output));
    let json = json(&run(&["--replay", &file, "--json"]));
    assert_eq!(json["exit"], 1);
    assert!(json["difference"].as_str().unwrap().starts_with("call "));
}

/// To be made again where the engine is meant to differ.
#[test]
fn the_recorded_lookup_of_the_documentation_has_this_picture() {
    let folder = Folder::new();
    let svg = folder.path("lookup.svg");
    let output = run(&["--replay", LOOKUP, "--svg", &svg]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let picture = std::fs::read(PICTURE).unwrap();
    assert!(folder.read("lookup.svg") == picture, "replay {LOOKUP} to {PICTURE}");
    for what in ["timed out", " hop 3 ", " given up: superseded", "kad find: converged"] {
        assert!(stdout(&output).contains(what), "{what}: {}", stdout(&output));
    }
}

#[test]
#[cfg(unix)]
fn a_node_that_is_interrupted_has_recorded_what_it_was_told() {
    let folder = Folder::new();
    let file = folder.path("a.kadrec");
    let mut serving = Running::start(&["--serve", "--nodes", "8", "--put", "hello", "--record", &file]);
    serving.line("put of ");
    serving.interrupt(0);
    let output = run(&["--replay", &file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("\nkad broadcast of "), "{}", stdout(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn a_recording_that_cannot_be_written_hides_nothing() {
    let arguments = ["--nodes", "12", "--json", "--deadline", "1m", "--record", "/dev/full"];
    for (does, code) in [(&["--put", "hello"][..], 1), (&["--get", NOWHERE], 3)] {
        let output = run(&[&arguments[..], does].concat());
        assert_eq!(output.status.code(), Some(code), "the highest: {output:?}");
        assert!(stderr(&output).contains("error: /dev/full: "), "{}", stderr(&output));
        assert_eq!(json(&output)["event"], "report", "and nothing else");
    }
    let output = run(&["--json", "--bootstrap", &closed().to_string(), "--record", "/dev/full"]);
    assert_eq!(output.status.code(), Some(1));
    let errors: Vec<_> = stderr(&output).lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors[0].contains("no bootstrap node answered"), "{errors:?}");
    assert!(errors[1].contains("/dev/full: "), "{errors:?}");
    assert!(json(&output)["error"].as_str().unwrap().starts_with("no bootstrap node answered"));
}

#[test]
#[cfg(unix)]
fn a_node_that_stays_records_in_pieces_and_one_that_is_killed_leaves_those() {
    let folder = Folder::new();
    let files = ["a.kadrec", "b.kadrec"].map(|name| folder.path(name));
    let [mut ended, mut killed] =
        files.each_ref().map(|file| Running::start(&["--serve", "--nodes", "8", "--record", file]));
    ended.line("routing table after 5 s");
    killed.line("routing table after 5 s");
    let written = folder.read("a.kadrec").len();
    ended.interrupt(0);
    assert!((1_000..folder.read("a.kadrec").len()).contains(&written), "{written} bytes before the end");
    let output = run(&["--replay", &files[0]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).lines().next().unwrap().ends_with(" calls, no difference"), "{output:?}");

    drop(killed);
    let output = run(&["--replay", &files[1]]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (_, calls) = stderr(&output).split_once("cut short after ").unwrap();
    let calls: u64 = calls.split(' ').next().unwrap().parse().unwrap();
    assert!(calls > 10, "{calls} calls");
}
