//! The templates of the mails: the built-in ones, and the admin's own that replace them by file name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The admin's own templates by file name.
pub type Overrides = BTreeMap<String, String>;

/// The built-in templates by file name; an admin's file of the same name replaces one.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("mail.html", include_str!("templates/mail.html")),
    (
        "notification.txt",
        include_str!("templates/notification.txt"),
    ),
    (
        "notification.html",
        include_str!("templates/notification.html"),
    ),
    ("digest.txt", include_str!("templates/digest.txt")),
    ("digest.html", include_str!("templates/digest.html")),
    ("information.txt", include_str!("templates/information.txt")),
    (
        "information.html",
        include_str!("templates/information.html"),
    ),
    ("alert.txt", include_str!("templates/alert.txt")),
];

/// A template of the admin's that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot read the template: {source}; see notification.template_dir")]
pub struct TemplateError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Reads the admin's own templates from `directory`; an empty path means that there are none.
///
/// # Errors
/// When one is there and can't be read.
pub fn overrides(directory: &Path) -> Result<Overrides, TemplateError> {
    let mut found = Overrides::new();
    if directory.as_os_str().is_empty() {
        return Ok(found);
    }
    for (name, _) in TEMPLATES {
        let path = directory.join(name);
        match fs::read_to_string(&path) {
            Ok(source) => drop(found.insert((*name).to_owned(), source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TemplateError { path, source }),
        }
    }
    Ok(found)
}
