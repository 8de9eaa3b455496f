//! The results as plots.

use std::path::Path;

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};

use super::{
    record::{Record, index},
    report::spread,
    score::weight,
    study::{Result, Results},
};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Policies that the plots of courses show; all of them would hide each other.
const SHOWN: [&str; 6] = [
    "none",
    "static concurrency, best in hindsight",
    "static concurrency, shares by priority",
    "Gradient2, fed TTFT",
    "engine's queue cap",
    "Tidegate",
];
const COLOURS: [RGBColor; 6] = [
    RGBColor(150, 150, 150),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 43, 30),
];
const LEVELS: [&str; 6] = ["1", "2", "4", "8", "17", "1 again"];
const FONT: (&str, i32) = ("sans-serif", 14);
const CAPTION: (&str, i32) = ("sans-serif", 18);
/// Seconds that are taken together in the plot over time.
const BIN: usize = 10;

/// Writes all plots into a directory.
pub fn draw(results: &Results, directory: &Path) -> anyhow::Result<()> {
    save(&directory.join("goodput-by-load.svg"), (820, 460), |area| by_load(results, area))?;
    save(&directory.join("goodput-over-time.svg"), (980, 460), |area| over_time(results, area))?;
    let height = 90 + 34 * results.policies.len() as u32;
    save(&directory.join("attained-by-priority.svg"), (900, height), |area| by_priority(results, area))
}

fn save(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    draw(&area)?;
    area.present().map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn shown(results: &Results) -> impl Iterator<Item = (&Result, RGBColor)> {
    SHOWN.into_iter().zip(COLOURS).filter_map(|(name, colour)| {
        results.policies.iter().find(|policy| policy.name == name).map(|policy| (policy, colour))
    })
}

/// Name, colour and points of a line.
type Line = (String, RGBColor, Vec<(f64, f64)>);

/// Lines with a legend.
fn lines(
    area: &Area<'_>,
    caption: &str,
    axes: (&str, &[String], f64),
    series: &[Line],
) -> anyhow::Result<()> {
    let (x_axis, x_labels, width) = axes;
    let highest = series.iter().flat_map(|(.., points)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, CAPTION)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..width, 0.0..highest * 1.3)?;
    let label = |x: &f64| x_labels.get(x.round() as usize).cloned().unwrap_or_else(|| format!("{x:.0}"));
    let ticks = if x_labels.is_empty() { 12 } else { x_labels.len() };
    chart
        .configure_mesh()
        .x_desc(x_axis)
        .y_desc("weighted tokens/s within objectives")
        .x_labels(ticks)
        .x_label_formatter(&label)
        .label_style(FONT)
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (name, colour, points) in series {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    let labels = &mut chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).label_font(FONT);
    labels.background_style(WHITE.mix(0.8)).border_style(RGBColor(200, 200, 200)).draw()?;
    Ok(())
}

fn by_load(results: &Results, area: &Area<'_>) -> anyhow::Result<()> {
    let of = |(policy, colour): (&Result, RGBColor)| {
        let points = (0..LEVELS.len()).map(|i| (i as f64, spread(policy, |score| score.by_level[i]).0));
        (policy.name.clone(), colour, points.collect())
    };
    let series: Vec<_> = shown(results).map(of).collect();
    let labels = LEVELS.map(str::to_owned);
    lines(area, "Goodput by load", ("copies of the trace", &labels, 5.0), &series)
}

fn over_time(results: &Results, area: &Area<'_>) -> anyhow::Result<()> {
    let of = |(policy, colour): (&Result, RGBColor)| (policy.name.clone(), colour, course(&policy.first));
    let series: Vec<_> = shown(results).map(of).collect();
    let end = series.iter().filter_map(|(.., points)| points.last()).map(|(x, _)| *x).fold(1.0, f64::max);
    lines(area, "One run: goodput by the time of arrival", ("seconds", &[], end), &series)
}

/// Weighted tokens per second of good requests by their arrival.
fn course(record: &Record) -> Vec<(f64, f64)> {
    let mut bins = vec![0.0; record.plan.end().as_secs() as usize / BIN];
    for (request, outcome) in record.requests.iter().zip(&record.outcomes) {
        if let Some(bin) = bins.get_mut(request.at.as_secs() as usize / BIN)
            && outcome.is_good()
        {
            *bin += weight(request.class) * f64::from(request.output) / BIN as f64;
        }
    }
    bins.into_iter().enumerate().map(|(i, tokens)| ((i * BIN) as f64, tokens)).collect()
}

fn by_priority(results: &Results, area: &Area<'_>) -> anyhow::Result<()> {
    let count = results.policies.len() as f64;
    let names: Vec<String> = results.policies.iter().map(|policy| policy.name.clone()).collect();
    let mut chart = ChartBuilder::on(area)
        .caption("Requests answered within their objective: high, medium, low", CAPTION)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(30)
        .y_label_area_size(370)
        .build_cartesian_2d(0.0..1.0, -0.5..count - 0.5)?;
    let name = |y: &f64| names.get((count - 1.0 - y).round() as usize).cloned().unwrap_or_default();
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(names.len())
        .y_label_formatter(&name)
        .x_label_formatter(&|share: &f64| format!("{:.0} %", share * 100.0))
        .label_style(FONT)
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    let classes = super::record::CLASSES.into_iter().zip([COLOURS[5], COLOURS[1], COLOURS[0]]);
    for (class, colour) in classes {
        let at = index(class);
        let bars = results.policies.iter().enumerate().map(|(row, policy)| {
            let bottom = count - 1.0 - row as f64 + 0.25 * (2 - at) as f64 - 0.375;
            let share = spread(policy, |score| score.attained[at]).0;
            Rectangle::new([(0.0, bottom), (share, bottom + 0.22)], colour.filled())
        });
        chart.draw_series(bars)?;
    }
    Ok(())
}
