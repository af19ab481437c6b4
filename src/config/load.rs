//! Where a configuration comes from: the one file and the environment of this process. All that the others in this
//! directory do not do, as they touch nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::environment::PREFIX;
use super::{Config, read};

/// What is wrong with a configuration file, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: cannot read the configuration: {source}; {}", advice(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An environment variable is wrong.
    #[error("environment variable {name}: {message}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The file's content is wrong.
    #[error("{path}{}: {message}", line.map(|n| format!(":{n}")).unwrap_or_default())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, counted from one, where known.
        line: Option<usize>,
        /// What is wrong, and what would be right.
        message: String,
    },
}

fn advice(source: &std::io::Error) -> &'static str {
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        "it holds secrets, and is for root and the hook's user: run this as root"
    } else {
        "name another file with --config, run `posttls init`, or give all required keys as variables"
    }
}

/// The variables of this process that may give a key.
fn variables() -> Result<BTreeMap<String, String>, ConfigError> {
    let mut found = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Some(name) = name.to_str() else {
            return Err(ConfigError::Variable {
                name: name.to_string_lossy().into_owned(),
                message: "its name is not UTF-8".to_owned(),
            });
        };
        let value = value.into_string().map_err(|_| ConfigError::Variable {
            name: name.to_owned(),
            message: "its value is not UTF-8".to_owned(),
        })?;
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

impl Config {
    /// Reads and checks the file at `path`, and the variables `POSTTLS_…` of this process, whose word comes first. The
    /// file may be missing when the variables give every key that has no default.
    ///
    /// # Errors
    /// When it can't be read, is no TOML, has a key that is unknown, missing, or out of range; or a variable is.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fault = |read::Problem { place, message }| match place {
            read::Place::File(line) => ConfigError::Wrong {
                path: path.to_owned(),
                line,
                message,
            },
            read::Place::Variable(name) => ConfigError::Variable { name, message },
        };
        let variables = variables()?;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && read::is_enough(&variables).map_err(fault)? =>
            {
                String::new()
            }
            Err(source) => {
                return Err(ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        read::parse(&text, &variables).map_err(fault)
    }
}
