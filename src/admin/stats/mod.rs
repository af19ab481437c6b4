//! `posttls stats`: which domains have no TLS, what was decided and how fast, as tables, JSON or a picture.

mod plot;
mod summary;

use std::path::{Path, PathBuf};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use jiff::tz::TimeZone;

use super::cases::{clock, open};
use super::moment::Moment;
use super::{AdminError, Done, print, print_json};
use crate::exit::Exit;
use summary::{Day, Summary};

/// Days that the table shows; JSON and the picture have all.
const DAYS_SHOWN: usize = 31;

#[derive(Debug, Args)]
pub(super) struct StatsOptions {
    /// Count from this time on: a date, a date and time, or how long ago (90m, 2h, 3d, 1w). Without it: everything.
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Show so many domains in the table and in the picture; JSON has all.
    #[arg(long, value_name = "NUMBER", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    top: u16,
    /// Print JSON: one object with domains, days, time to decide and outcomes.
    #[arg(long)]
    json: bool,
    /// Write a picture to this file: cases and decisions by day, and the domains with most failures.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(super) fn run(options: &StatsOptions, config: &Path) -> Done {
    let store = open(config)?;
    let since = options.since.map_or(i64::MIN, Moment::as_millisecond);
    let summary = Summary::of(store.statistics(since)?, &TimeZone::system());
    if let Some(path) = &options.plot {
        let picture = plot::draw(&summary, usize::from(options.top)).map_err(|why| {
            AdminError::new(Exit::Failure, format!("cannot draw the picture: {why}"))
        })?;
        std::fs::write(path, picture).map_err(|error| {
            let text = format!("{}: cannot write the picture: {error}", path.display());
            AdminError::new(Exit::Failure, text)
        })?;
    }
    if options.json {
        print_json(&summary)?;
    } else {
        print(&tables(&summary, usize::from(options.top)))?;
    }
    Ok(Exit::Ok)
}

/// A table without frames, with numbers to the right.
fn table(titles: &[&str], rows: Vec<Vec<String>>, texts: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.to_vec());
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 3));
        if index >= texts {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table
        .to_string()
        .lines()
        .map(|line| format!("    {}", line.trim_end()))
        .collect();
    lines.join("\n") + "\n"
}

fn tables(summary: &Summary, top: usize) -> String {
    if summary.is_empty() {
        return "Nothing has failed for TLS in that time.\n".to_owned();
    }
    let mut out = format!(
        "Domains without TLS ({} in all, {} recipients in {} messages)\n\n",
        summary.domains.len(),
        summary.recipients,
        summary.messages
    );
    let rows = summary.domains.iter().take(top).map(|domain| {
        let failures: Vec<String> = domain
            .failures
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let name = if domain.domain.is_empty() {
            "(no domain)".to_owned()
        } else {
            domain.domain.clone()
        };
        vec![
            name,
            failures.join(", "),
            domain.messages.to_string(),
            domain.recipients.to_string(),
            clock(domain.last_seen),
        ]
    });
    let titles = ["domain", "failures", "messages", "recipients", "last seen"];
    out += &table(&titles, rows.collect(), 2);

    out += "\nBy day\n\n";
    let hidden = summary.days.len().saturating_sub(DAYS_SHOWN);
    let rows = summary.days.iter().skip(hidden).map(|(date, day)| {
        let mut row = vec![date.to_string(), day.cases.to_string()];
        row.extend(Day::COLUMNS.iter().map(|(_, count)| count(day).to_string()));
        row
    });
    let mut titles = vec!["day", "cases"];
    titles.extend(Day::COLUMNS.iter().map(|(name, _)| *name));
    out += &table(&titles, rows.collect(), 1);
    if hidden > 0 {
        out += &format!("    ({hidden} earlier days are in --json)\n");
    }

    out += "\nTime from the notification to the sender's choice\n\n";
    out += &match &summary.time_to_decide {
        None => "    nobody has decided by a link\n".to_owned(),
        Some(time) => format!(
            "    median {}, 90 % within {}, longest {} ({} recipients)\n",
            duration(time.median_seconds),
            duration(time.ninety_percent_seconds),
            duration(time.longest_seconds),
            time.recipients
        ),
    };

    out += "\nWhat became of the recipients\n\n";
    let rows = summary.outcomes.iter().map(|outcome| {
        let passage = outcome.passage.map_or("", crate::case::Passage::as_str);
        vec![
            outcome.state.to_string(),
            passage.to_owned(),
            outcome.recipients.to_string(),
        ]
    });
    out += &table(&["state", "may instance", "recipients"], rows.collect(), 2);
    out
}

/// Seconds as a person says them.
fn duration(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min"),
            (3725, "1 h 2 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn numbers_stand_below_each_other() {
        let rows = vec![
            vec!["müller.example".to_owned(), "7".to_owned()],
            vec!["a.test".to_owned(), "1200".to_owned()],
        ];
        assert_eq!(
            table(&["domain", "count"], rows, 1),
            "    domain           count\n    müller.example       7\n    a.test            1200\n"
        );
    }
}
