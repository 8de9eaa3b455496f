//! Panels below each other as one SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::tier::{Panel, Phase, Point};

const SIZE: (u32, u32) = (760, 690);
const VALUE: RGBColor = RGBColor(0x1F, 0x4E, 0x79);
const CEILING: RGBColor = RGBColor(0xC0, 0x39, 0x2B);
const REFUSED: RGBColor = RGBColor(0xF5, 0xC6, 0xC0);
const RETURNS: RGBColor = RGBColor(0xFB, 0xE8, 0xB0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The text of the plot.
pub(super) fn svg(title: &str, panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let root = root.titled(title, ("sans-serif", 18)).map_err(failed)?;
        let areas = root.split_evenly((panels.len(), 1));
        for (area, panel) in areas.iter().zip(panels) {
            draw(area, panel)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(text)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

fn draw(area: &Area<'_>, panel: &Panel) -> Result<()> {
    let minutes = panel.points.iter().map(|point| point.minute);
    let (first, last) = (minutes.clone().fold(f64::INFINITY, f64::min), minutes.fold(0.0, f64::max));
    let values = panel.points.iter().flat_map(|point| [point.value, point.ceiling]).flatten();
    let top = values.fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 14))
        .margin(4)
        .x_label_area_size(28)
        .y_label_area_size(44)
        .build_cartesian_2d(first..last, 0.0..top)
        .map_err(failed)?;
    let shades = [(Phase::Refused, REFUSED), (Phase::Returns, RETURNS)];
    for (phase, colour) in shades {
        let spans = spans(&panel.points, phase);
        let bars = spans
            .into_iter()
            .map(|(from, to)| Rectangle::new([(from, 0.0), (to, top)], ShapeStyle::from(colour).filled()));
        chart.draw_series(bars).map_err(failed)?;
    }
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("minutes")
        .x_labels(8)
        .y_labels(5)
        .label_style(("sans-serif", 11))
        .draw()
        .map_err(failed)?;
    for (of, colour) in [(Point::value as fn(&Point) -> Option<f64>, VALUE), (Point::ceiling, CEILING)] {
        for line in lines(&panel.points, of) {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(1))).map_err(failed)?;
        }
    }
    Ok(())
}

impl Point {
    fn value(&self) -> Option<f64> {
        self.value
    }

    fn ceiling(&self) -> Option<f64> {
        self.ceiling
    }
}

/// The stretches of time in one phase.
fn spans(points: &[Point], phase: Phase) -> Vec<(f64, f64)> {
    let end = |i: usize| points.get(i + 1).unwrap_or(&points[i]).minute;
    let mut spans: Vec<(f64, f64)> = Vec::new();
    for (i, point) in points.iter().enumerate().filter(|(_, point)| point.phase == phase) {
        match spans.last_mut() {
            Some((_, to)) if *to >= point.minute => *to = end(i),
            _ => spans.push((point.minute, end(i))),
        }
    }
    spans
}

/// The unbroken lines of what is there.
fn lines(points: &[Point], of: impl Fn(&Point) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let runs = points.split(|point| of(point).is_none()).filter(|run| !run.is_empty());
    runs.map(|run| run.iter().filter_map(|point| Some((point.minute, of(point)?))).collect()).collect()
}
