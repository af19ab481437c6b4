//! Figures and the table that they stand in (pure).

use std::fmt;
use std::time::Duration;

/// Many measurements of one thing.
#[derive(Debug, Clone)]
pub struct Figures {
    sorted: Vec<f64>,
}

impl Figures {
    /// From measurements in any order; there must be one.
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        Self { sorted: values }
    }

    /// From times, in milliseconds.
    pub fn of(times: &[Duration]) -> Self {
        Self::new(times.iter().map(|time| ms(*time)).collect())
    }

    /// The value below which this share of all is.
    pub fn at(&self, share: f64) -> f64 {
        self.sorted[((self.sorted.len() - 1) as f64 * share).round() as usize]
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The figures in the order in which they were taken, as the README shows them.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<[String; 7]>,
}

impl Table {
    /// A row about `what`, in `unit`. `beside` compares it with something.
    pub fn row(&mut self, what: &str, unit: &str, figures: &Figures, beside: &str) {
        let shown = |share| short(figures.at(share));
        let row = [
            what.to_owned(),
            format!("{} {unit}", shown(0.5)),
            shown(0.1),
            shown(0.9),
            shown(0.99),
            figures.sorted.len().to_string(),
            beside.to_owned(),
        ];
        eprintln!("  {}", row.join(" | "));
        self.rows.push(row);
    }

    /// A row of one figure that is the most there was.
    pub fn peak(&mut self, what: &str, value: f64, unit: &str, beside: &str) {
        let shown = format!("{} {unit}", short(value));
        let row = [what, &shown, "", "", "", "1", beside].map(str::to_owned);
        eprintln!("  {}", row.join(" | "));
        self.rows.push(row);
    }
}

/// Three digits, or all before the point.
fn short(value: f64) -> String {
    match value.abs() {
        small if small < 9.995 => format!("{value:.2}"),
        medium if medium < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median | 10 % | 90 % | 99 % | n | beside |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}
