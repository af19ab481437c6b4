//! The picture of `posttls stats --plot`: cases and decisions by day above, the domains with most failures below.
//!
//! An SVG whose letters the viewer draws, so no font is needed here; the places of words are by an estimate of widths.

use jiff::civil::Date;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::summary::{Day, Summary};
use crate::case::Failure;
use crate::text;

const WIDTH: u32 = 1000;
const ABOVE: u32 = 430;
const ROW: u32 = 28;
/// Room for names of domains, left of their bars, in pixels and in characters.
const NAMES: u32 = 250;
const NAME: usize = 34;
/// Bars that can be told apart. More days than that share bars.
const MOST_BARS: usize = 92;

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const CASES: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
/// In the order of [`Day::COLUMNS`]: send, delete, keep, admin, rule. Apart for those, too, who see no red or green.
const DECISIONS: [RGBColor; 5] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x33, 0x33, 0x33),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xcc, 0x79, 0xa7),
];
const FAILURES: [(Failure, RGBColor); 6] = [
    (Failure::NotOffered, RGBColor(0x00, 0x72, 0xb2)),
    (Failure::Refused, RGBColor(0x56, 0xb4, 0xe9)),
    (Failure::HandshakeFailed, RGBColor(0xe6, 0x9f, 0x00)),
    (Failure::Certificate, RGBColor(0xd5, 0x5e, 0x00)),
    (Failure::RequireTls, RGBColor(0x33, 0x33, 0x33)),
    (Failure::Policy, RGBColor(0x00, 0x9e, 0x73)),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws the picture.
///
/// # Errors
/// When the drawing library can't.
pub(super) fn draw(summary: &Summary, top: usize) -> Result<String, Box<dyn std::error::Error>> {
    let rows = u32::try_from(summary.domains.len().clamp(1, top))?;
    let below = 110 + rows * ROW;
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, (WIDTH, ABOVE + below));
        let root = root.into_drawing_area();
        root.fill(&WHITE)?;
        let (above, below) = root.split_vertically(ABOVE);
        by_day(&above, summary)?;
        by_domain(&below, summary, top)?;
        root.present()?;
    }
    Ok(picture)
}

fn heading(area: &Area<'_>, words: &str) -> Drawn {
    area.draw_text(words, &style(20), (20, 16))?;
    Ok(())
}

fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Boxes of colour with what they stand for, in a row.
fn legend(area: &Area<'_>, entries: &[(&str, RGBColor)]) -> Drawn {
    let (mut x, y) = (20, 48);
    for (name, colour) in entries {
        area.draw(&Rectangle::new([(x, y), (x + 13, y + 13)], colour.filled()))?;
        area.draw_text(name, &style(14), (x + 19, y - 1))?;
        let letters = i32::try_from(name.chars().count())?;
        x += 19 + letters * 7 + 20;
    }
    Ok(())
}

/// Days that share a bar, the first of them as its name.
fn bars(summary: &Summary) -> (usize, Vec<(Date, Day)>) {
    let days: Vec<_> = summary.days.iter().collect();
    let shared = days.len().div_ceil(MOST_BARS).max(1);
    let bars = days.chunks(shared).map(|days| {
        let mut sum = Day::default();
        for (_, day) in days {
            sum.cases += day.cases;
            sum.sent += day.sent;
            sum.deleted += day.deleted;
            sum.kept += day.kept;
            sum.by_admin += day.by_admin;
            sum.by_rule += day.by_rule;
        }
        (*days[0].0, sum)
    });
    (shared, bars.collect())
}

/// A number that an axis may end with: above `most`, with a few whole steps below it.
fn axis_end(most: i64) -> i64 {
    let step = 10i64.pow(most.max(1).ilog10());
    let step = if step == 1 { 1 } else { step / 2 };
    (most / step + 1) * step
}

fn by_day(area: &Area<'_>, summary: &Summary) -> Drawn {
    let (shared, bars) = bars(summary);
    let per = match shared {
        1 => "by day".to_owned(),
        days => format!("in {days} days each"),
    };
    heading(area, &format!("PostTLS: cases and decisions {per}"))?;
    let mut entries = vec![("cases opened", CASES)];
    let decisions = ["sent", "deleted", "kept", "by an admin", "by a rule"];
    entries.extend(decisions.into_iter().zip(DECISIONS));
    legend(area, &entries)?;
    let most = bars
        .iter()
        .map(|(_, day)| day.cases.max(day.decisions()))
        .max();
    let end = axis_end(most.unwrap_or(0));
    let count = i32::try_from(bars.len().max(1))?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(76)
        .margin_left(16)
        .margin_right(24)
        .margin_bottom(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..f64::from(count) - 0.5, 0i64..end)?;
    let date = |x: f64| {
        // The axis may ask for places between bars, too.
        let at = x.round();
        let index = (0..bars.len()).find(|index| (*index as f64 - at).abs() < 0.5);
        index
            .filter(|_| (x - at).abs() < 0.01)
            .map(|index| bars[index].0.strftime("%-d %b %Y").to_string())
            .unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_labels(8)
        .x_label_formatter(&|x| date(*x))
        .y_labels(6)
        .y_desc("cases, recipients decided about")
        .x_desc(if shared == 1 { "day" } else { "first day" })
        .label_style(style(13))
        .axis_desc_style(style(14))
        .draw()?;
    for (index, (_, day)) in bars.iter().enumerate() {
        let left = index as f64 - 0.5;
        let half = left + 0.48;
        let cases = [(left + 0.12, 0), (half, day.cases)];
        chart.draw_series([Rectangle::new(cases, CASES.filled())])?;
        let mut from = 0;
        for ((_, count), colour) in Day::COLUMNS.iter().zip(DECISIONS) {
            let to = from + count(day);
            if to > from {
                let part = [(half, from), (left + 0.88, to)];
                chart.draw_series([Rectangle::new(part, colour.filled())])?;
            }
            from = to;
        }
    }
    Ok(())
}

fn by_domain(area: &Area<'_>, summary: &Summary, top: usize) -> Drawn {
    let shown = &summary.domains[..summary.domains.len().min(top)];
    let all = summary.domains.len();
    let which = if all > shown.len() {
        format!(" (the first {} of {all})", shown.len())
    } else {
        String::new()
    };
    heading(
        area,
        &format!("Recipients that failed for TLS, by domain{which}"),
    )?;
    legend(
        area,
        &FAILURES.map(|(kind, colour)| (kind.as_str(), colour)),
    )?;
    let most = shown.iter().map(|domain| domain.recipients).max();
    let most = most.unwrap_or(1).max(1) as f64;
    let room = f64::from(WIDTH - NAMES - 110);
    let name_style = style(14).pos(Pos::new(HPos::Right, VPos::Center));
    let count_style = style(14).pos(Pos::new(HPos::Left, VPos::Center));
    for (index, domain) in shown.iter().enumerate() {
        let y = 84 + i32::try_from(index as u32 * ROW)?;
        let middle = y + i32::try_from(ROW / 2)?;
        let left = i32::try_from(NAMES)? + 10;
        let name = match domain.domain.as_str() {
            "" => "(no domain)".to_owned(),
            name => text::readable(name, NAME),
        };
        area.draw_text(&name, &name_style, (left - 10, middle))?;
        let (mut from, mut sum) = (left, 0);
        for (kind, colour) in FAILURES {
            sum += domain.failures.get(&kind).copied().unwrap_or(0);
            let to = left + (sum as f64 / most * room).round() as i32;
            if to > from {
                let part = [(from, y + 4), (to, y + i32::try_from(ROW)? - 4)];
                area.draw(&Rectangle::new(part, colour.filled()))?;
            }
            from = to;
        }
        let count = domain.recipients.to_string();
        area.draw_text(&count, &count_style, (from + 8, middle))?;
    }
    if shown.is_empty() {
        area.draw_text("none", &style(14), (20, 84))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_above_what_they_show() {
        for (most, end) in [
            (0, 1),
            (1, 2),
            (7, 8),
            (10, 15),
            (99, 100),
            (120, 150),
            (999, 1000),
        ] {
            assert_eq!(axis_end(most), end, "{most}");
        }
    }

    #[test]
    fn many_days_share_bars_and_nothing_is_lost() {
        let first: Date = "2026-01-01".parse().unwrap();
        let day = Day {
            cases: 1,
            sent: 2,
            ..Day::default()
        };
        let days = std::iter::successors(Some(first), |date| date.tomorrow().ok());
        let summary = Summary {
            recipients: 0,
            messages: 0,
            domains: Vec::new(),
            days: days.take(400).map(|date| (date, day)).collect(),
            time_to_decide: None,
            outcomes: Vec::new(),
        };
        let (shared, bars) = bars(&summary);
        assert!(bars.len() <= MOST_BARS && shared == 5, "{}", bars.len());
        assert_eq!(bars.iter().map(|(_, day)| day.cases).sum::<i64>(), 400);
        assert!(draw(&summary, 10).unwrap().starts_with("<svg"));
    }
}
