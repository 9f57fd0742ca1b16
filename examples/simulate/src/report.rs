//! The report: one self-contained HTML page with plots as inline SVG.

use crate::single::Speed;
use crate::strategies::Row;
use kad_proto::sim::{BroadcastFigures, BroadcastRun, Health, LookupRun, Reason, RequestEnd, World};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

type Drawn = Result<String, Box<dyn Error>>;

const SIZE: (u32, u32) = (720, 360);
const INK: RGBColor = RGBColor(38, 84, 158);
const GOOD: RGBColor = RGBColor(84, 160, 92);
const BAD: RGBColor = RGBColor(200, 76, 66);
const GREY: RGBColor = RGBColor(120, 120, 120);
const TEXT: (&str, u32) = ("sans-serif", 13);

pub(crate) fn page(name: &str, world: &World, speed: &Speed) -> Drawn {
    let ended: Vec<_> = world
        .lookups()
        .iter()
        .filter(|lookup| lookup.reason == Reason::Workload)
        .filter_map(|lookup| Some((lookup, lookup.ending.as_ref()?)))
        .collect();
    let times: Vec<_> =
        ended.iter().filter_map(|(lookup, _)| lookup.took()).map(|t| t.as_secs_f64()).collect();
    let hops: Vec<_> = ended.iter().map(|(_, ending)| f64::from(ending.stats.hops)).collect();
    let requests: Vec<_> = ended.iter().map(|(_, ending)| f64::from(ending.stats.sent)).collect();
    let stores = world.scenario().broadcasts.is_some();
    let took: Vec<_> =
        world.broadcasts().iter().filter_map(BroadcastRun::took).map(|t| t.as_secs_f64()).collect();
    let mut plots = Vec::new();
    if stores {
        plots.push(("Time until a broadcast returns", histogram(&took, "seconds", "broadcasts", None)?));
        let shares: Vec<_> =
            world.broadcasts().iter().filter_map(|it| it.share).map(|it| it * 100.0).collect();
        let label = "% of the true k closest that hold the record in the end";
        plots.push(("Who holds the records", histogram(&shares, label, "broadcasts", Some(5.0))?));
    }
    if !ended.is_empty() || !stores {
        plots.extend([
            ("LookupRun time", histogram(&times, "seconds", "lookups", None)?),
            (
                "Hops",
                histogram(
                    &hops,
                    "length of the longest causal chain that was answered",
                    "lookups",
                    Some(1.0),
                )?,
            ),
            ("Requests", histogram(&requests, "requests of a lookup", "lookups", None)?),
        ]);
    }
    if world.health().is_empty() {
        plots.push((
            "Routing tables",
            "<p>The scenario does not have them looked at: set <code>health</code>.</p>".into(),
        ));
    } else {
        plots.push(("Routing tables by common prefix length, over time", occupancy(world.health())?));
        let health = world.health();
        plots.push(("Routing tables over time: nodes", lines(health, "nodes in a table", &NODES)?));
        plots.push(("Routing tables over time: quality", lines(health, "%", &QUALITY)?));
        if health.iter().any(|health| health.upkeep.sum() > 0.0) {
            plots.push(("Upkeep over time", lines(health, "requests of a node in a minute", &UPKEEP)?));
        }
    }
    // The one of median length among those whose requests were kept.
    let mut kept: Vec<_> = world.lookups().iter().filter(|lookup| !lookup.asked.is_empty()).collect();
    kept.sort_by_key(|lookup| lookup.took());
    if let Some(lookup) = kept.get(kept.len() / 2) {
        plots.push(("One lookup", waterfall(lookup)?));
    }
    let mut figures = escape(&world.figures().to_string());
    if stores {
        let of_broadcasts = escape(&world.broadcast_figures().to_string());
        figures = if ended.is_empty() { of_broadcasts } else { format!("{figures}\n\n{of_broadcasts}") };
    }
    let scenario = world.scenario();
    let title = format!("{}: {} nodes, seed {}", escape(name), scenario.nodes, scenario.seed);
    let mut page = head(&title);
    if speed.interrupted {
        page.push_str("<p><strong>Interrupted: the figures so far.</strong></p>\n");
    }
    writeln!(page, "<pre>{figures}</pre>")?;
    for (title, plot) in plots {
        writeln!(page, "<h2>{title}</h2>\n{plot}")?;
    }
    writeln!(page, "<h2>Scenario</h2>\n<pre>{}</pre>\n</body></html>", escape(&format!("{scenario:#?}")))?;
    Ok(page)
}

/// The beginning of a page.
fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>\
         body{{font:15px/1.5 sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#222}}\
         pre{{background:#f4f4f4;padding:1em;overflow-x:auto}}svg{{max-width:100%;height:auto}}\
         h2{{margin-top:2em;font-size:1.1em}}</style></head>\n<body><h1>{title}</h1>\n"
    )
}

/// The page of the strategies of broadcasts: the table, and for each network their times and who holds the
/// records.
pub(crate) fn strategies(table: &str, rows: &[Row]) -> Drawn {
    let mut page = head("Strategies of broadcasts");
    writeln!(page, "<pre>{}</pre>", escape(table))?;
    for rows in rows.chunk_by(|a, b| a.title == b.title) {
        let title = rows.first().map_or("", |row| &row.title);
        writeln!(page, "<h2>{}: time until the return, seconds</h2>", escape(title))?;
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        let seconds = |time: Duration| time.as_secs_f64();
        let times: Vec<_> = rows
            .iter()
            .map(|Row { figures: BroadcastFigures { time, .. }, .. }| {
                [time.p50, time.p90, time.p99].map(seconds)
            })
            .collect();
        let legend = [("p50", GOOD), ("p90", INK), ("p99", BAD)];
        writeln!(page, "{}", bars(&names, &times, &legend, 0.05, (0.05..200.0).log_scale())?)?;
        writeln!(page, "<h2>{}: share of the true k closest that hold a record</h2>", escape(title))?;
        let shares: Vec<_> =
            rows.iter().map(|row| [row.figures.share_at_return, row.figures.share]).collect();
        let legend = [("at the return", INK), ("in the end", GOOD)];
        writeln!(page, "{}", bars(&names, &shares, &legend, 0.0, 0.0..1.05)?)?;
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

/// Groups of bars side by side, each group with its name below.
fn bars<const N: usize, Y: AsRangedCoord<Value = f64>>(
    names: &[&str],
    values: &[[f64; N]],
    legend: &[(&str, RGBColor); N],
    bottom: f64,
    y: Y,
) -> Drawn
where
    Y::CoordDescType: ValueFormatter<f64>,
{
    let (mut svg, mut key) = (String::new(), String::new());
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(12)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..names.len() as f64, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .label_style(TEXT)
            .max_light_lines(0)
            .y_label_formatter(&plain)
            .draw()?;
        for (group, (name, values)) in names.iter().zip(values).enumerate() {
            let width = 0.8 / N as f64;
            for (place, (value, (_, colour))) in values.iter().zip(legend).enumerate() {
                let left = group as f64 + 0.1 + place as f64 * width;
                let corners = [(left, bottom), (left + width * 0.92, value.max(bottom))];
                chart.draw_series([Rectangle::new(corners, colour.mix(0.8).filled())])?;
            }
            let (x, y) = chart.backend_coord(&(group as f64 + 0.1, bottom));
            area.draw(&Text::new((*name).to_owned(), (x, y + 4), TEXT))?;
        }
        for (name, RGBColor(red, green, blue)) in legend {
            write!(key, "<span style=\"color:rgb({red},{green},{blue})\">&#9632;</span> {name}&emsp;")?;
        }
        area.present()?;
    }
    Ok(format!("<p>{key}</p>{svg}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number as an axis shows it.
#[allow(clippy::trivially_copy_pass_by_ref)] // the plotter passes it so
fn plain(number: &f64) -> String {
    format!("{}", (number * 1e6).round() / 1e6)
}

/// How often which value occurs, in bins of this width, or of one that fits.
fn histogram(values: &[f64], label: &str, counted: &str, width: Option<f64>) -> Drawn {
    let most = values.iter().copied().fold(0.0, f64::max);
    let width = width.unwrap_or_else(|| {
        let rough = (most / 40.0).max(1e-6);
        let scale = 10_f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|step| step * scale)
            .find(|width| *width >= rough)
            .unwrap_or(rough)
    });
    let mut bins: Vec<u32> = vec![0; (most / width) as usize + 1];
    for value in values {
        if let Some(bin) = bins.get_mut((value / width) as usize) {
            *bin += 1;
        }
    }
    let highest = f64::from(bins.iter().copied().max().unwrap_or(0).max(1));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..bins.len() as f64 * width, 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc(label)
            .y_desc(counted)
            .label_style(TEXT)
            .max_light_lines(0)
            .x_label_formatter(&plain)
            .y_label_formatter(&plain)
            .draw()?;
        let bars = bins.iter().enumerate().filter(|(_, count)| **count > 0);
        chart.draw_series(bars.map(|(place, count)| {
            let left = place as f64 * width;
            Rectangle::new([(left, 0.0), (left + width * 0.92, f64::from(*count))], INK.mix(0.8).filled())
        }))?;
        area.present()?;
    }
    Ok(svg)
}

/// A line of a plot: its name, its colour, and what it shows.
type Line = (&'static str, RGBColor, fn(&Health) -> f64);

const NODES: [Line; 3] = [
    ("live", GOOD, |health| health.size * (1.0 - health.dead)),
    ("dead", BAD, |health| health.size * health.dead),
    ("missing: live, and in no full bucket", INK, |health| health.missing),
];

const QUALITY: [Line; 3] = [
    ("the true k closest to itself that a table holds", INK, |health| health.recall * 100.0),
    ("tables that hold all of these", GOOD, |health| health.complete * 100.0),
    ("dead nodes among all in the tables", BAD, |health| health.dead * 100.0),
];

const UPKEEP: [Line; 4] = [
    ("probes: is a node of the table still there?", INK, |health| health.upkeep.probe),
    ("checks of nodes that may enter it", GOOD, |health| health.upkeep.include),
    ("refreshes of buckets", GREY, |health| health.upkeep.explore),
    ("bootstraps that began by themselves", BAD, |health| health.upkeep.bootstrap),
];

fn seconds(health: &Health) -> f64 {
    (health.at - kad_proto::Instant::ORIGIN).as_secs_f64()
}

/// A unit of time in which these can be read, and how many seconds it has.
fn unit(all: &[Health]) -> (&'static str, f64) {
    match all.last().map_or(0.0, seconds) {
        end if end > 7_200.0 => ("hours", 3_600.0),
        end if end > 600.0 => ("minutes", 60.0),
        _ => ("seconds", 1.0),
    }
}

/// How full the buckets are: time to the right, common prefix length upwards, the darker the fuller.
fn occupancy(all: &[Health]) -> Drawn {
    let step = all.len().div_ceil(120).max(1);
    let samples: Vec<_> = all.iter().step_by(step).collect();
    let depth = samples.iter().map(|health| health.by_cpl.len()).max().unwrap_or(1).max(1);
    let fullest = samples.iter().flat_map(|health| &health.by_cpl).copied().fold(1.0, f64::max);
    let (unit, long) = unit(all);
    let time = |health: &Health| seconds(health) / long;
    let gap = samples.get(1).map_or(1.0, |second| time(second) - samples.first().map_or(0.0, |f| time(f)));
    let end = samples.last().map_or(1.0, |last| time(last) + gap);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..end, 0.0..depth as f64)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(format!("{unit} (darkest: {fullest:.0} nodes in a bucket)"))
            .y_desc("common prefix length")
            .label_style(TEXT)
            .max_light_lines(0)
            .draw()?;
        chart.draw_series(samples.iter().flat_map(|health| {
            let left = time(health);
            health.by_cpl.iter().enumerate().map(move |(cpl, nodes)| {
                let corners = [(left, cpl as f64), (left + gap, cpl as f64 + 1.0)];
                Rectangle::new(corners, INK.mix(nodes / fullest).filled())
            })
        }))?;
        area.present()?;
    }
    Ok(svg)
}

fn lines(all: &[Health], y: &str, lines: &[Line]) -> Drawn {
    let (unit, long) = unit(all);
    let most =
        all.iter().flat_map(|health| lines.iter().map(|(.., value)| value(health))).fold(1.0, f64::max);
    let end = all.last().map_or(1.0, |last| seconds(last) / long).max(1e-3);
    let (mut svg, mut legend) = (String::new(), String::new());
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..end, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .x_desc(unit)
            .y_desc(y)
            .label_style(TEXT)
            .max_light_lines(0)
            .x_label_formatter(&plain)
            .y_label_formatter(&plain)
            .draw()?;
        for (name, colour, value) in lines {
            let points = all.iter().map(|health| (seconds(health) / long, value(health)));
            let RGBColor(red, green, blue) = colour;
            write!(legend, "<span style=\"color:rgb({red},{green},{blue})\">&#9632;</span> {name}&emsp;")?;
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        }
        area.present()?;
    }
    Ok(format!("<p>{legend}</p>{svg}"))
}

/// Every request of a lookup, from when it was sent to when it ended.
fn waterfall(lookup: &LookupRun) -> Drawn {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let took = millis(lookup.took().unwrap_or_default()).max(1.0);
    let rows = lookup.asked.len();
    let mut svg = String::new();
    {
        let height = 80 + 14 * u32::try_from(rows).unwrap_or(100).min(400);
        let area = SVGBackend::with_string(&mut svg, (SIZE.0, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(10)
            .build_cartesian_2d(0.0..took * 1.25, 0.0..rows as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc("ms; green: answered, red: timed out or failed, grey: given up, blue: open")
            .label_style(TEXT)
            .max_light_lines(0)
            .draw()?;
        for (row, asked) in lookup.asked.iter().enumerate() {
            let top = (rows - row) as f64;
            let begin = millis(asked.sent - lookup.began);
            let (end, colour) = match asked.ended {
                None => (took, INK.mix(0.5)),
                Some((at, fate)) => (
                    millis(at - lookup.began),
                    match fate {
                        RequestEnd::Answered => GOOD.mix(0.9),
                        RequestEnd::TimedOut | RequestEnd::Failed => BAD.mix(0.9),
                        _ => BLACK.mix(0.3),
                    },
                ),
            };
            let label = format!("{} hop {}", asked.node, asked.hop);
            let bar = Rectangle::new([(begin, top - 0.15), (end, top - 0.85)], colour.filled());
            chart.draw_series([bar])?;
            chart.draw_series([Text::new(label, (end + took * 0.01, top - 0.25), ("sans-serif", 10))])?;
        }
        area.present()?;
    }
    Ok(svg)
}
