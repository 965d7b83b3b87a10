//! Test error against size on disk, as SVG.

use crate::report::Report;
use plotters::prelude::*;
use std::{error::Error, path::Path};

pub(crate) fn draw(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(path, (760, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let sizes = report.stages.iter().map(|stage| stage.bytes as f64 / 1000.0);
    let errors = || report.stages.iter().flat_map(|stage| stage.test_error_percent_by_seed.iter().copied());
    let (low, high) = (errors().fold(f64::MAX, f64::min), errors().fold(0.0, f64::max));
    let smallest = sizes.clone().fold(f64::MAX, f64::min);
    let largest = sizes.fold(0.0, f64::max);
    let room = (high - low).max(0.2) * 0.3;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("LeNet-300-100 on {}: test error against size", report.dataset), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((smallest * 0.7..largest * 8.0).log_scale(), (low - room).max(0.0)..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("file, kB (log scale)")
        .y_desc("test error, %")
        .x_label_formatter(&|kb| format!("{kb:.0}"))
        .y_label_formatter(&|error| format!("{error:.2}"))
        .draw()?;
    for (i, stage) in report.stages.iter().enumerate() {
        let color = Palette99::pick(i).to_rgba();
        let kb = stage.bytes as f64 / 1000.0;
        let by_seed = stage.test_error_percent_by_seed.iter();
        chart.draw_series(by_seed.map(|&error| Circle::new((kb, error), 3, color.mix(0.5).filled())))?;
        let label = format!("{} {:.1}x, {:.2} %", stage.name, stage.ratio, stage.test_error_percent);
        chart.draw_series(std::iter::once(
            EmptyElement::at((kb, stage.test_error_percent))
                + Circle::new((0, 0), 6, color.filled())
                + Text::new(label, (10, -6), ("sans-serif", 14).into_font()),
        ))?;
    }
    area.present()?;
    Ok(())
}
