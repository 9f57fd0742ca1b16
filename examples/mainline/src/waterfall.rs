//! The finished spans of an operation in the order of what led to what, each with a bar over the time it took: for
//! the terminal.

use crate::trace::{Ending, HAD, Span};
use core::fmt;
use kad_proto::{Instant, SpanContext};
use std::collections::HashMap;

/// No line is longer.
const COLUMNS: usize = 100;
/// Columns before the bar and around it.
const TIMES: usize = 25;
/// No bar is shorter or longer.
const BARS: (usize, usize) = (16, 40);

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub span: &'a Span,
    pub depth: usize,
    /// The row of what led to it.
    pub cause: Option<usize>,
}

/// The spans, what led to something before what it led to, else in the order that they are in. A span hangs under
/// its parent or, where it is a trace of its own, under what it links to; at depth 0 is what hangs under nothing
/// that is here.
pub fn rows(spans: &[Span]) -> Vec<Row<'_>> {
    let places: HashMap<_, _> =
        spans.iter().enumerate().map(|(place, span)| (span.context().span_id(), place)).collect();
    let cause = |span: &Span| {
        let link = span.link().map(SpanContext::span_id);
        [Some(span.parent()), link].into_iter().flatten().find_map(|id| places.get(&id)).copied()
    };
    let mut under = HashMap::<_, Vec<&Span>>::new();
    for span in spans.iter().rev() {
        under.entry(cause(span)).or_default().push(span);
    }
    let mut open: Vec<_> =
        under.remove(&None).into_iter().flatten().map(|span| Row { span, depth: 0, cause: None }).collect();
    let mut rows = Vec::with_capacity(spans.len());
    while let Some(row) = open.pop() {
        let place = places.get(&row.span.context().span_id()).copied();
        let row_of = |span| Row { span, depth: row.depth + 1, cause: Some(rows.len()) };
        open.extend(place.and_then(|place| under.remove(&Some(place))).into_iter().flatten().map(row_of));
        rows.push(row);
    }
    rows
}

/// From the start of the first to the end of the last; not empty.
pub fn extent(spans: &[Span]) -> (Instant, Instant) {
    let from = spans.iter().map(|span| span.started).min().unwrap_or(Instant::ORIGIN);
    let until = spans.iter().map(|span| span.ended).max().unwrap_or(from);
    (from, until.max(Instant::from_nanos(from.as_nanos().saturating_add(1))))
}

/// What a span is and what came of it, in words. There is nothing in it that another run of the same events would
/// not say.
pub fn label(span: &Span) -> String {
    if !span.is_request() {
        let outcome = span.text("kad.outcome").or(span.text("error.type")).unwrap_or("not over");
        return format!("{}: {outcome}", span.name());
    }
    let asked = match span.asked() {
        // Nothing, if it was given up before it was sent.
        "find_node" | "" => String::new(),
        asked => format!("{asked} "),
    };
    let later = if span.is_background() { " later" } else { "" };
    let end = match (span.ending(), span.number("kad.closer")) {
        (Ending::Answered, Some(named)) => format!("named {named}"),
        (Ending::Cancelled, _) => format!("given up: {}", span.text("kad.end").unwrap_or_default()),
        (ending, _) => ending.text().unwrap_or("in flight").into(),
    };
    let more = [(", had ", span.text(HAD)), (": ", span.failure())];
    let more = more.map(|(before, text)| text.map_or_else(String::new, |text| format!("{before}{text}")));
    format!("{asked}{} hop {}{later} {end}{}", span.address(), span.hop(), more.concat())
}

/// What the bar of a span is drawn with.
const fn mark(ending: Ending) -> &'static str {
    match ending {
        Ending::Answered | Ending::Stored => "=",
        Ending::TimedOut => "x",
        Ending::Cancelled | Ending::Abandoned => "~",
        Ending::Failed => "!",
    }
}

/// The finished spans of an operation, as lines.
#[derive(Clone, Copy, Debug)]
pub struct Waterfall<'a>(pub &'a [Span]);

impl fmt::Display for Waterfall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, until) = extent(self.0);
        let lines: Vec<_> = rows(self.0)
            .into_iter()
            .map(|Row { span, depth, .. }| (span, format!("{:depth$}{}", "", label(span))))
            .collect();
        let longest = lines.iter().map(|(_, label)| label.chars().count()).max().unwrap_or_default();
        let width = COLUMNS.saturating_sub(TIMES + longest).clamp(BARS.0, BARS.1);
        let room = COLUMNS - TIMES - width;
        let column = |at: Instant, up: u128| {
            let (nanos, all) = ((at - from).as_nanos(), (until - from).as_nanos().max(1));
            usize::try_from((nanos * width as u128 + up * (all - 1)) / all).unwrap_or(width)
        };
        let millis = |time: core::time::Duration| time.as_secs_f64() * 1_000.0;
        writeln!(f, "  {:>9} {:>9}  = answered, x timed out, ~ given up, ! failed", "at ms", "took ms")?;
        for (span, label) in lines {
            let begin = column(span.started, 0).min(width - 1);
            let end = column(span.ended, 1).clamp(begin + 1, width);
            let bar = mark(span.ending()).repeat(end - begin);
            let (at, took) = (millis(span.started - from), millis(span.elapsed()));
            write!(f, "  {at:>9.3} {took:>9.3} |{:begin$}{bar:<rest$}|", "", rest = width - begin)?;
            if label.chars().count() <= room {
                writeln!(f, " {label}")?;
            } else {
                writeln!(f, " {}...", label.chars().take(room - 3).collect::<String>())?;
            }
        }
        Ok(())
    }
}
