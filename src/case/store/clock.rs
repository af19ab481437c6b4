//! Whether the host's clock can be believed when it says that something is old enough to be removed for good.
//!
//! Everything else that a wrong clock does is undone when it is set right: links open again, mail goes out. What retention
//! has removed stays removed. So after a leap of the clock nothing is removed for a day, in which somebody can notice. A
//! mover that did not run for as long looks the same; then it costs a day.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError, now_ms};

/// Two looks are an hour apart. What is further apart than this is a leap.
const LEAP_MS: i64 = 86_400_000;
/// How long nothing is removed after one.
const DOUBT_MS: i64 = 86_400_000;

/// What the last look has left: its time, and until when the clock was doubted then.
type Last = (i64, Option<i64>);

/// Until when the clock is doubted at `now`.
fn doubt(last: Option<Last>, now: i64) -> Option<i64> {
    let (at, doubted) = last?;
    if now - at > LEAP_MS {
        Some(now + DOUBT_MS)
    } else if at - now > LEAP_MS {
        // Set back: it was wrong before, and is right now.
        None
    } else {
        doubted.filter(|until| now < *until)
    }
}

impl Store {
    /// Notes a look at what is to be forgotten. Until when nothing may be, in Unix milliseconds, as the clock may be wrong.
    ///
    /// # Errors
    /// When the store fails.
    pub fn doubts_clock(&self) -> Result<Option<i64>, StoreError> {
        self.write("cannot note the time", |tx| {
            let now = now_ms();
            let last = tx
                .query_row("SELECT at, doubt_until FROM last_look", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let until = doubt(last, now);
            tx.execute(
                "INSERT INTO last_look (id, at, doubt_until) VALUES (1, ?1, ?2)
                 ON CONFLICT (id) DO UPDATE SET at = excluded.at, doubt_until = excluded.doubt_until",
                params![now, until],
            )?;
            Ok(until)
        })
    }
}

/// Until when the last look had doubts.
pub(super) fn doubted_until(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let until = connection
        .query_row("SELECT doubt_until FROM last_look", [], |row| row.get(0))
        .optional()?;
    Ok(until.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    const NOW: i64 = 50 * YEAR;

    /// Looks at these times, one after the other: is the clock believed?
    fn looks(times: &[i64]) -> Vec<bool> {
        let mut last = None;
        let looks = times.iter().map(|now| {
            let until = doubt(last, *now);
            last = Some((*now, until));
            until.is_none()
        });
        looks.collect()
    }

    #[test]
    fn hour_by_hour_it_is_believed() {
        assert_eq!(looks(&[NOW, NOW + HOUR, NOW + 2 * HOUR]), [true; 3]);
        // The mover did not run for half a day; somebody set the clock by an hour.
        assert_eq!(looks(&[NOW, NOW + 12 * HOUR, NOW + 11 * HOUR]), [true; 3]);
    }

    #[test]
    fn after_a_leap_it_is_doubted_for_a_day_whoever_restarts_meanwhile() {
        let leapt = NOW + YEAR;
        let times = [NOW, leapt, leapt + 1, leapt + 23 * HOUR, leapt + 24 * HOUR];
        assert_eq!(looks(&times), [true, false, false, false, true]);
    }

    #[test]
    fn set_right_it_is_believed_at_once() {
        assert_eq!(
            looks(&[NOW, NOW + YEAR, NOW + HOUR, NOW + 2 * HOUR]),
            [true, false, true, true]
        );
    }

    #[test]
    fn behind_and_then_right_it_costs_a_day() {
        let times = [NOW, 0, HOUR, NOW, NOW + 23 * HOUR, NOW + 24 * HOUR];
        assert_eq!(looks(&times), [true, true, true, false, false, true]);
    }
}
