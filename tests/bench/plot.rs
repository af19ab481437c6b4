//! The picture of the growth: pending messages against seconds of work a minute, for PostTLS and for the older way.

use std::error::Error;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (720, 360);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const MINUTE: f64 = 60.0;

/// Pending messages, and seconds of work a minute.
pub type Curve = Vec<(f64, f64)>;

/// Draws it, as SVG: the viewer has the letters.
///
/// # Errors
/// When the drawing library can't.
pub fn draw(posttls: &Curve, older: &Curve) -> Result<String, Box<dyn Error>> {
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let all = || posttls.iter().chain(older);
        let end = |values: &mut dyn Iterator<Item = f64>| values.fold(1e-9, f64::max) * 1.6;
        let start = |values: &mut dyn Iterator<Item = f64>| values.fold(1e9, f64::min) / 1.6;
        let x = start(&mut all().map(|one| one.0))..end(&mut all().map(|one| one.0));
        let y =
            start(&mut all().map(|one| one.1))..end(&mut all().map(|one| one.1)).max(2.0 * MINUTE);
        let mut chart = ChartBuilder::on(&root)
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x.clone().log_scale(), y.log_scale())?;
        chart
            .configure_mesh()
            .disable_mesh()
            .axis_style(INK)
            .label_style(words(13))
            .x_desc("pending messages")
            .y_desc("seconds of work a minute")
            .x_label_formatter(&|value| thousands(*value))
            .y_label_formatter(&|value| format!("{value}"))
            .draw()?;
        let limit = [(x.start, MINUTE), (x.end, MINUTE)];
        chart.draw_series([PathElement::new(limit, FAINT.stroke_width(2))])?;
        let above = words(12).pos(Pos::new(HPos::Left, VPos::Bottom));
        let note = Text::new("all of one processor", (x.start * 1.1, MINUTE * 1.1), above);
        chart.draw_series([note])?;
        for (curve, colour, name) in [
            (
                older,
                RGBColor(0xd5, 0x5e, 0x00),
                "mailq, one postcat a message",
            ),
            (posttls, RGBColor(0x00, 0x72, 0xb2), "PostTLS"),
        ] {
            chart.draw_series([PathElement::new(curve.clone(), colour.stroke_width(2))])?;
            chart.draw_series(
                curve
                    .iter()
                    .map(|place| Circle::new(*place, 4, colour.filled())),
            )?;
            if let Some((x, y)) = curve.last() {
                let style = words(14)
                    .color(&colour)
                    .pos(Pos::new(HPos::Right, VPos::Bottom));
                chart.draw_series([Text::new(name, (x / 1.15, y * 1.1), style)])?;
            }
        }
        root.present()?;
    }
    Ok(picture)
}

fn words(size: u32) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK)
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    match digits.len() {
        0..=3 => digits,
        length => format!("{},{}", &digits[..length - 3], &digits[length - 3..]),
    }
}
