//! One instance as the comparison needs it, asked of `postconf`; and the commands that mend a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Client, Difference, Remedy, literal};
use crate::postfix::instance::{PostfixError, program, run};

/// What main.cf and master.cf of an instance say about its way out.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Parameters that main.cf sets.
    pub explicit: BTreeSet<String>,
    /// The values of all that exist, expanded.
    pub values: BTreeMap<String, String>,
    /// Services that run smtp(8).
    pub clients: Vec<Client>,
    /// Other services, as `NAME/TYPE`.
    pub others: BTreeSet<String>,
    /// Where it keeps its databases.
    pub data_directory: PathBuf,
}

impl Side {
    /// Asks `postconf`.
    ///
    /// # Errors
    /// When there is no such instance.
    pub fn load(config_dir: &Path) -> Result<Self, PostfixError> {
        let ask = |option| -> Result<String, PostfixError> {
            let output = run(program("postconf", config_dir).arg(option))?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        Ok(Self::read(
            &ask("-n")?,
            &ask("-x")?,
            &ask("-M")?,
            &[ask("-P")?, ask("-Px")?],
        ))
    }

    /// From what `postconf -n`, `-x`, `-M`, `-P` and `-Px` print.
    pub(super) fn read(
        explicit: &str,
        values: &str,
        services: &str,
        [written, options]: &[String; 2],
    ) -> Self {
        let values: BTreeMap<String, String> = values
            .lines()
            .filter_map(pair)
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let disabled: Vec<String> =
            words(values.get("master_service_disable").map_or("", |all| all));
        let data_directory = values.get("data_directory").map(PathBuf::from);
        let mut side = Self {
            explicit: explicit
                .lines()
                .filter_map(pair)
                .map(|(name, _)| name.to_owned())
                .collect(),
            data_directory: data_directory.unwrap_or_default(),
            values,
            ..Self::default()
        };
        for line in services.lines() {
            side.add(line, &disabled, written, options);
        }
        side
    }

    fn add(&mut self, line: &str, disabled: &[String], written: &str, options: &str) {
        let all = words(line);
        let [name, kind, ..] = all.as_slice() else {
            return;
        };
        let id = format!("{name}/{kind}");
        // private, unprivileged, chroot, wakeup, maxproc, command
        let is_client = kind == "unix" && all.get(7).is_some_and(|command| command == "smtp");
        if !is_client || disabled.contains(&id) {
            self.others.insert(id);
            return;
        }
        let mut arguments = Vec::new();
        let mut rest = all[8..].iter();
        while let Some(word) = rest.next() {
            if word == "-o" {
                rest.next();
            } else {
                arguments.push(word.clone());
            }
        }
        let of = |text: &str| {
            let start = format!("{id}/");
            text.lines()
                .filter_map(|line| pair(line.strip_prefix(&start)?))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        self.clients.push(Client {
            name: name.clone(),
            columns: all[2..8].join(" "),
            arguments,
            options: of(options),
            written: of(written),
        });
    }
}

fn pair(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    Some((name.trim(), value.trim()))
}

/// Words separated by blanks outside of braces.
fn words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut word) = (0usize, String::new());
    for c in line.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && c.is_whitespace() {
            if !word.is_empty() {
                found.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        found.push(word);
    }
    found
}

impl Difference {
    /// The arguments of `postconf`, after `-c` and the directory, that mend it; `None` when hands must do it.
    pub fn command(&self) -> Option<[String; 2]> {
        let name = &self.name;
        match &self.remedy {
            Remedy::Set(value) => Some(["-e".to_owned(), format!("{name}={}", literal(value))]),
            Remedy::Unset => Some(["-X".to_owned(), name.clone()]),
            Remedy::Service(entry) => Some(["-M".to_owned(), format!("{name}={entry}")]),
            Remedy::ByHand(_) => None,
        }
    }
}

/// Carries out what can be carried out, in the instance in `config_dir`.
///
/// # Errors
/// When `postconf` fails.
pub fn apply(config_dir: &Path, differences: &[Difference]) -> Result<(), PostfixError> {
    for arguments in differences.iter().filter_map(Difference::command) {
        run(program("postconf", config_dir).args(&arguments))?;
    }
    Ok(())
}

/// Copies main.cf and master.cf to files beside them that do not exist yet. Their names.
///
/// # Errors
/// When that does not work.
pub fn back_up(config_dir: &Path, stamp: &str) -> io::Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for name in ["main.cf", "master.cf"] {
        let from = config_dir.join(name);
        let to = config_dir.join(format!("{name}.before-mirror-{stamp}"));
        let mode = fs::metadata(&from)?.permissions();
        let mut source = fs::File::open(&from)?;
        let mut target = fs::File::create_new(&to)?;
        io::copy(&mut source, &mut target)?;
        target.set_permissions(mode)?;
        target.sync_all()?;
        made.push(to);
    }
    Ok(made)
}
