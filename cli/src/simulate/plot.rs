//! A replay over time as an SVG.

use std::io;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;

use super::report::{ByClass, PointRow, Report};
use crate::refused::Refused;

const SIZE: (u32, u32) = (960, 780);
/// Narrower columns than these cannot be told apart.
const COLUMNS: usize = 300;
/// Rules that get a line each: those with the most refusals.
const LINES: usize = 7;

/// Colours that the colour-blind can tell apart; after Okabe and Ito.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const PALETTE: [RGBColor; LINES] =
    [VERMILION, BLUE, GREEN, RGBColor(204, 121, 167), RGBColor(230, 159, 0), SKY, BLACK];

type Failed = DrawingAreaErrorKind<io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Several steps drawn as one.
struct Columns<'a> {
    chunks: Vec<&'a [PointRow]>,
    /// Seconds of one.
    width: f64,
}

/// Something drawn in one colour over time.
struct Layer {
    name: String,
    color: RGBColor,
    values: Vec<f64>,
}

pub(crate) fn of(report: &Report) -> Result<String, Refused> {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    draw(&root, report).map_err(|error| Refused::of(format!("--plot: {error}")))?;
    drop(root);
    Ok(svg)
}

fn draw(root: &Area<'_>, report: &Report) -> Result<(), Failed> {
    root.fill(&WHITE)?;
    let points = &report.series.points;
    let merged = points.len().div_ceil(COLUMNS).max(1);
    let columns = Columns {
        chunks: points.chunks(merged).collect(),
        width: report.series.step_seconds * merged as f64,
    };
    let (requests, rest) = root.split_vertically(320);
    let (refusals, pressure) = rest.split_vertically(230);
    stacked(&requests, &columns, &by_class(report, &columns))?;
    lines(&refusals, &columns, &by_rule(report, &columns))?;
    pressures(&pressure, &columns)?;
    root.present()
}

impl Columns<'_> {
    fn span(&self) -> f64 {
        self.width * self.chunks.len() as f64
    }

    /// Per second, of each column.
    fn rate(&self, count: impl Fn(&PointRow) -> u64) -> Vec<f64> {
        let rate = |points: &&[PointRow]| points.iter().map(&count).sum::<u64>() as f64 / self.width;
        self.chunks.iter().map(rate).collect()
    }

    /// Where a column lies.
    fn bounds(&self, column: usize) -> (f64, f64) {
        (self.width * column as f64, self.width * (column + 1) as f64)
    }
}

/// What was admitted of each class, and what was not.
fn by_class(report: &Report, columns: &Columns<'_>) -> Vec<Layer> {
    let admitted: Vec<bool> =
        report.decisions.iter().map(|row| matches!(row.verdict, "admitted" | "shadow")).collect();
    let layer = |name: &str, color, wanted: bool, count: fn(ByClass) -> u64| {
        let of = |point: &PointRow| {
            let rows = point.requests.iter().zip(&admitted).filter(|(_, admitted)| **admitted == wanted);
            rows.map(|(row, _)| count(*row)).sum()
        };
        Layer { name: name.to_owned(), color, values: columns.rate(of) }
    };
    vec![
        layer("admitted, high", BLUE, true, |row| row.high),
        layer("admitted, medium", SKY, true, |row| row.medium),
        layer("admitted, low", GREEN, true, |row| row.low),
        layer("not admitted", VERMILION, false, ByClass::all),
    ]
}

/// The rules with the most refusals.
fn by_rule(report: &Report, columns: &Columns<'_>) -> Vec<Layer> {
    let mut rows: Vec<usize> = (0..report.decisions.len()).collect();
    rows.retain(|row| report.decisions[*row].cause.is_some());
    rows.sort_by_key(|row| std::cmp::Reverse(report.decisions[*row].requests.all()));
    let layers = rows.into_iter().zip(PALETTE).map(|(row, color)| Layer {
        name: report.decisions[row].label(),
        color,
        values: columns.rate(|point| point.requests[row].all()),
    });
    layers.collect()
}

/// A chart with its axes.
fn chart<'a>(area: &Area<'a>, title: &str, span: f64, top: f64) -> Result<Chart<'a>, Failed> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..span, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_label_formatter(&|seconds| clock(*seconds, span))
        .draw()?;
    Ok(chart)
}

/// Seconds, minutes or hours, as the whole span suggests.
fn clock(seconds: f64, span: f64) -> String {
    match span {
        ..300.0 => format!("{seconds} s"),
        ..7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn legend(chart: &mut Chart<'_>) -> Result<(), Failed> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 12))
        .draw()
}

fn stacked(area: &Area<'_>, columns: &Columns<'_>, layers: &[Layer]) -> Result<(), Failed> {
    let mut floor = vec![0.0; columns.chunks.len()];
    let heights = (0..floor.len()).map(|i| layers.iter().map(|layer| layer.values[i]).sum());
    let top = heights.fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.05;
    let mut chart = chart(area, "requests per second", columns.span(), top)?;
    for Layer { name, color, values } in layers {
        let bars = values.iter().zip(&floor).enumerate().filter(|(_, (value, _))| **value > 0.0);
        let bars = bars.map(|(i, (value, from))| {
            let (left, right) = columns.bounds(i);
            Rectangle::new([(left, *from), (right, from + value)], color.filled())
        });
        let color = *color;
        chart
            .draw_series(bars)?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x + 4, y - 5), (x + 14, y + 5)], color.filled()));
        floor.iter_mut().zip(values).for_each(|(floor, value)| *floor += value);
    }
    legend(&mut chart)
}

fn lines(area: &Area<'_>, columns: &Columns<'_>, layers: &[Layer]) -> Result<(), Failed> {
    let highest = layers.iter().flat_map(|layer| layer.values.iter().copied()).fold(0.0, f64::max);
    let top = if highest > 0.0 { highest * 1.05 } else { 1.0 };
    let mut chart = chart(area, "refused, or would be, per second by rule", columns.span(), top)?;
    for Layer { name, color, values } in layers {
        let color = *color;
        let steps = values.iter().enumerate().flat_map(|(i, value)| {
            let (left, right) = columns.bounds(i);
            [(left, *value), (right, *value)]
        });
        chart
            .draw_series(LineSeries::new(steps, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x + 2, y), (x + 16, y)], color.stroke_width(2)));
    }
    if layers.is_empty() { Ok(()) } else { legend(&mut chart) }
}

/// The pressure, and in grey when low was refused by a tier or the breaker was not closed.
fn pressures(area: &Area<'_>, columns: &Columns<'_>) -> Result<(), Failed> {
    let title = "pressure; grey: a tier sheds or the breaker is not closed";
    let mut chart = chart(area, title, columns.span(), 1.05)?;
    let acts =
        |points: &[PointRow]| points.iter().any(|point| point.breaker_open || !point.shedding.is_empty());
    let grey = columns.chunks.iter().enumerate().filter(|(_, points)| acts(points)).map(|(i, _)| {
        let (left, right) = columns.bounds(i);
        Rectangle::new([(left, 0.0), (right, 1.05)], BLACK.mix(0.15).filled())
    });
    chart.draw_series(grey)?;
    let steps = columns.chunks.iter().enumerate().flat_map(|(i, points)| {
        let (left, right) = columns.bounds(i);
        let pressure = points.iter().map(|point| point.pressure).fold(0.0, f64::max);
        [(left, pressure), (right, pressure)]
    });
    chart.draw_series(LineSeries::new(steps, BLUE.stroke_width(2)))?;
    Ok(())
}
