//! The same waterfall as a picture: SVG, readable on light and on dark paper, the same for the same spans whatever
//! their ids.

use crate::trace::{Ending, Span};
use crate::waterfall::{Row, extent, label, rows};
use core::fmt::{self, Write};
use core::time::Duration;

/// Units of the picture: the width of a letter, whatever the font; of the bars; and the height of a row.
const LETTER: f64 = 6.0;
const BARS: f64 = 560.0;
const ROW: f64 = 16.0;
const MARGIN: f64 = 12.0;

/// Of this picture alone: a page that has it within itself would else take all of that for its own.
const STYLE: &str = "
  .kad-lookup .paper { fill: #ffffff; }
  .kad-lookup text { font: 10px ui-monospace, Menlo, Consolas, monospace; fill: #24292f; white-space: pre; }
  .kad-lookup .grid { stroke: #d0d7de; stroke-width: 0.5; }
  .kad-lookup .cause { stroke: #8c959f; stroke-width: 0.8; fill: none; }
  .kad-lookup .operation { fill: #8c959f; }
  .kad-lookup .answered { fill: #2da44e; }
  .kad-lookup .late { fill: #bf8700; }
  .kad-lookup .given { fill: #a475f9; }
  .kad-lookup .failed { fill: #cf222e; }
  @media (prefers-color-scheme: dark) {
    .kad-lookup .paper { fill: #0d1117; }
    .kad-lookup text { fill: #c9d1d9; }
    .kad-lookup .grid { stroke: #30363d; }
    .kad-lookup .cause { stroke: #6e7681; }
    .kad-lookup .operation { fill: #6e7681; }
    .kad-lookup .answered { fill: #3fb950; }
    .kad-lookup .late { fill: #d29922; }
    .kad-lookup .given { fill: #a371f7; }
    .kad-lookup .failed { fill: #f85149; }
  }
";

/// By class: what each colour means.
const LEGEND: [(&str, &str); 5] = [
    ("operation", "operation"),
    ("answered", "answered"),
    ("late", "timed out"),
    ("given", "given up"),
    ("failed", "failed"),
];

fn class(span: &Span) -> &'static str {
    match span.ending() {
        Ending::TimedOut => "late",
        Ending::Failed => "failed",
        Ending::Cancelled | Ending::Abandoned => "given",
        Ending::Answered | Ending::Stored if span.is_request() => "answered",
        Ending::Answered | Ending::Stored => "operation",
    }
}

/// A picture of operations, one below the other.
///
/// # Errors
/// None but those of the formatter, which has none.
pub fn svg(operations: &[&[Span]]) -> Result<String, fmt::Error> {
    let texts = operations.iter().flat_map(|spans| rows(spans).into_iter().map(words));
    let letters = texts.map(|text| text.chars().count()).max().unwrap_or_default().max(40);
    let left = 2.0 * MARGIN + units(letters) * LETTER;
    let (mut y, mut body) = (MARGIN, String::new());
    for spans in operations {
        waterfall(&mut body, spans, left, &mut y)?;
    }
    let mut x = MARGIN;
    for (class, meaning) in LEGEND {
        writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>",
            y + 3.0
        )?;
        text(&mut body, (x + 16.0, y), meaning)?;
        x += 40.0 + units(meaning.len()) * LETTER;
    }
    let (width, height) = (left + BARS + 4.0 * MARGIN, y + ROW + MARGIN);
    Ok(format!(
        "<svg class=\"kad-lookup\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.1} {height:.1}\" \
         width=\"{width:.1}\" height=\"{height:.1}\" style=\"max-width:100%\">\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    ))
}

fn words(Row { span, depth, .. }: Row<'_>) -> String {
    format!("{:depth$}{}", "", label(span))
}

/// One operation, from `y` downwards: its title, its axis, and a row for each span.
fn waterfall(to: &mut String, spans: &[Span], left: f64, y: &mut f64) -> fmt::Result {
    let (from, until) = extent(spans);
    let all = (until - from).as_secs_f64() * 1_000.0;
    let x = |time: Duration| left + time.as_secs_f64() * 1_000.0 / all * BARS;
    let rows = rows(spans);
    let operation = rows.first().map(|row| row.span);
    if let Some(target) = operation.and_then(|span| span.text("kad.target")) {
        text(to, (MARGIN, *y), &format!("target {target}"))?;
    }
    let top = *y + 2.0 * ROW;
    let bottom = top + units(rows.len()) * ROW;
    let step = step(all / 7.0);
    for tick in 0_u32.. {
        let at = f64::from(tick) * step;
        if at > all {
            break;
        }
        let x = left + at / all * BARS;
        writeln!(to, "<path class=\"grid\" d=\"M{x:.1} {:.1}V{bottom:.1}\"/>", top - 4.0)?;
        let unit = if tick == 0 { " ms" } else { "" };
        let number = format!("{at:.3}");
        let number = number.trim_end_matches('0').trim_end_matches('.');
        text(to, (x, top - ROW - 4.0), &format!("{number}{unit}"))?;
    }
    let middle = |row: usize| top + (units(row) + 0.5) * ROW;
    // A request follows from the end of another; and from an operation, which lasts, while that lasts.
    for (place, row) in rows.iter().enumerate() {
        let Some((cause, of)) = row.cause.and_then(|cause| Some((cause, rows.get(cause)?))) else { continue };
        let (begin, end) = (x(of.span.ended.min(row.span.started) - from), x(row.span.started - from));
        let (above, here) = (middle(cause), middle(place));
        writeln!(to, "<path class=\"cause\" d=\"M{begin:.1} {above:.1}V{here:.1}H{end:.1}\"/>")?;
    }
    for (place, row) in rows.iter().enumerate() {
        let (begin, y) = (x(row.span.started - from), top + units(place) * ROW);
        let width = (x(row.span.ended - from) - begin).max(2.5);
        let class = class(row.span);
        text(to, (MARGIN, y), &words(*row))?;
        let y = y + 4.0;
        writeln!(
            to,
            "<rect class=\"{class}\" x=\"{begin:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"8\"/>"
        )?;
    }
    *y = bottom + ROW;
    Ok(())
}

/// A text whose row begins at this height, as wide as its letters are many.
fn text(to: &mut String, (x, y): (f64, f64), text: &str) -> fmt::Result {
    let indent = text.chars().take_while(|letter| *letter == ' ').count();
    let shown = text.trim_start();
    let (x, length) = (x + units(indent) * LETTER, units(shown.chars().count()) * LETTER);
    write!(to, "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\">", y + 0.7 * ROW)?;
    for letter in shown.chars() {
        match letter {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            // What XML does not have.
            '\u{fffe}' | '\u{ffff}' => to.push('?'),
            letter if letter.is_control() => to.push('?'),
            letter => to.push(letter),
        }
    }
    to.push_str("</text>\n");
    Ok(())
}

/// The next of 1, 2, 5, 10, 20, ... and 0.5, 0.2, ... that is no less; of the thousandths no smaller.
fn step(least: f64) -> f64 {
    let decades = (-3..7).map(|exponent| 10_f64.powi(exponent));
    let mut steps = decades.flat_map(|ten| [1.0, 2.0, 5.0].map(|digit| digit * ten));
    steps.find(|step| *step >= least).unwrap_or(least)
}

#[allow(clippy::cast_precision_loss)] // a picture has no more rows
const fn units(count: usize) -> f64 {
    count as f64
}
