//! Staying in the network: answering others, doing things again, and showing how the routing table fills.

use crate::Tape;
use crate::agenda::Agenda;
use crate::options::{self, Options, Stay};
use crate::report::{News, Occupancy, Report, Upkeep};
use core::time::Duration;
use kad_mainline::driver::Driver;
use kad_mainline::saved::FEW;
use kad_mainline::testnet::Testnet;
use kad_mainline::trace::Kept;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the routing table is shown, and what was recorded written.
const SHOW: Duration = Duration::from_secs(5);

/// How often names of bootstrap nodes are resolved again that could not be.
const RESOLVE: Duration = Duration::from_secs(30);

/// How often the routing table is saved.
const SAVE: Duration = Duration::from_secs(60);

/// Stays for as long as the options say, or until interrupted. Prints what happens, and writes what is recorded.
/// Says the exit code.
///
/// # Errors
/// That of the socket, of the recording or of the output; and where there is no way to notice an interruption.
pub(crate) fn stay<'a>(
    driver: &mut Driver,
    agenda: &mut Agenda<'a>,
    options: &'a Options,
    (testnet, mut unresolved): (Option<&Testnet>, Vec<String>),
    kept: &Kept,
    tape: &mut Option<Tape>,
) -> Result<u8, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let (flag, wake) = (Arc::clone(&interrupted), driver.waker()?);
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        wake();
    })?;

    let begun = driver.now();
    let end = match options.stay {
        Stay::For(time) => Some(begun + time),
        _ => None,
    };
    let (mut show, mut again) = (begun + SHOW, options.every.map(|every| begun + every));
    let (mut resolve, mut save) = (begun + RESOLVE, begun);
    // What there is to do waits until there is somebody to ask.
    let mut knows_others = false;
    let mut code = 0;
    loop {
        knows_others |= !driver.table().is_empty();
        let now = driver.now();
        let is_over = interrupted.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end);
        if is_over {
            driver.stop();
            driver.abandon();
        } else if knows_others && !agenda.go_on(driver) && again.is_some_and(|again| now >= again) {
            again = options.every.map(|every| now + every);
            *agenda = Agenda::new(options);
            agenda.go_on(driver);
        }
        code = code.max(print(driver, options, testnet, kept, is_over)?);
        if !knows_others && now >= resolve && !is_over {
            resolve = now + RESOLVE;
            unresolved.retain(|name| match options::resolve(name) {
                Ok(address) => {
                    driver.expect([address]);
                    false
                }
                Err(_) => true,
            });
        }
        if let Some(path) = &options.save
            && now >= save
            && driver.table().len() >= FEW
        {
            save = now + SAVE;
            crate::save(path, driver)?;
        }
        if is_over || now >= show {
            show = now + SHOW;
            if let Some(tape) = tape {
                tape.append(driver.take_recording())?;
            }
            let occupancy = Occupancy { table: driver.table(), now, room: driver.bucket_size() };
            if options.json {
                writeln!(io::stdout(), "{}", occupancy.json())?;
            } else {
                write!(io::stdout(), "{occupancy}")?;
            }
        }
        if is_over {
            let has_waited = !knows_others && !options.bootstrap.is_empty();
            if has_waited {
                let names = options.bootstrap.join(", ");
                let _ = writeln!(io::stderr(), "error: no bootstrap node answered: {names}");
            }
            return Ok(code.max(u8::from(has_waited)));
        }
        let again = again.filter(|_| knows_others && driver.unfinished() == 0);
        driver.step([Some(show), again, end].into_iter().flatten().min())?;
    }
}

/// Prints what happened since the last time. Says the worst exit code of what ended.
fn print(
    driver: &mut Driver,
    options: &Options,
    testnet: Option<&Testnet>,
    kept: &Kept,
    is_over: bool,
) -> io::Result<u8> {
    let mut code = 0;
    for (now, news) in driver.take_news() {
        let news = News { now, said: &news };
        if options.json {
            writeln!(io::stdout(), "{}", news.json())?;
        } else {
            write!(io::stdout(), "{news}")?;
        }
    }
    for span in kept.take_upkeep(driver.origin()) {
        let upkeep = Upkeep(&span);
        if options.json {
            writeln!(io::stdout(), "{}", upkeep.json())?;
        } else {
            write!(io::stdout(), "{upkeep}")?;
        }
    }
    for operation in driver.take_ended(is_over) {
        let report = Report::new(operation, kept, driver, testnet);
        code = code.max(report.exit_code());
        report.draw()?;
        if options.json {
            writeln!(io::stdout(), "{}", report.json())?;
        } else {
            write!(io::stdout(), "{report}")?;
        }
    }
    Ok(code)
}
