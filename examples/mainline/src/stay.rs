//! Staying in the network: answering others, doing things again, and showing how the routing table fills.

use crate::Tape;
use crate::agenda::Agenda;
use crate::options::{Options, Stay};
use crate::report::{News, Occupancy, Report, Upkeep};
use core::time::Duration;
use kad_mainline::driver::Driver;
use kad_mainline::testnet::Testnet;
use kad_mainline::trace::Kept;
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the routing table is shown, and what was recorded written.
const SHOW: Duration = Duration::from_secs(5);

/// Stays for as long as the options say, or until interrupted. Prints what happens, and writes what is recorded.
/// Says the exit code.
///
/// # Errors
/// That of the socket, of the recording or of the output; and where there is no way to notice an interruption.
pub(crate) fn stay<'a>(
    driver: &mut Driver,
    agenda: &mut Agenda<'a>,
    options: &'a Options,
    testnet: Option<&Testnet>,
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
    let mut code = 0;
    loop {
        let now = driver.now();
        let is_over = interrupted.load(Ordering::Relaxed) || end.is_some_and(|end| now >= end);
        if is_over {
            driver.stop();
            driver.abandon();
        } else if !agenda.go_on(driver) && again.is_some_and(|again| now >= again) {
            again = options.every.map(|every| now + every);
            *agenda = Agenda::new(options);
            agenda.go_on(driver);
        }
        code = code.max(print(driver, options, testnet, kept, is_over)?);
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
            return Ok(code);
        }
        driver.step(
            [Some(show), again.filter(|_| driver.unfinished() == 0), end].into_iter().flatten().min(),
        )?;
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
